"""The toy task of the robustness benchmark: handwritten digits on ten unlike sites, and many small networks trained at once.

Nothing here knows of attacks or of screening. Needs scikit-learn for its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SITES: Final = 10
WIDTHS: Final = (64, 48, 32, 10)
PARAMETERS: Final = sum(a * b + b for a, b in pairwise(WIDTHS))
CLASSES: Final = 10
STEPS: Final = 10
BATCH: Final = 32

_TEST: Final = 400
_ANCHOR: Final = 100
_FEWEST_EXAMPLES: Final = 20
_LEARNING_RATE: Final = 0.1
_CLIP_NORM: Final = 5.0

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Images (n, 64), float32, and labels (n,)."""

    images: Tensor
    labels: Tensor

    def at(self, indices: Indices) -> Examples:
        """Those examples, in that order and shape."""
        return Examples(images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """One seed's data.

    Attributes:
      pool: what the sites' indices point into. train, validation: one index array per site.
      anchor: public examples that no site trains on.
    """

    pool: Examples
    train: tuple[Indices, ...]
    validation: tuple[Indices, ...]
    test: Examples
    anchor: Examples


@cache
def digits(seed: int, alpha: float) -> Digits:
    """The 1797 digits of scikit-learn: 400 for the test, 100 public ones, the rest by a Dirichlet split per class."""
    from sklearn.datasets import load_digits

    rng = np.random.RandomState(seed)
    images, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(labels))
    images, labels = (images[order] / 16 - 0.3).astype(np.float32), labels[order]
    test, anchor, pool = (
        Examples(images=torch.tensor(images[part]), labels=torch.tensor(labels[part]))
        for part in (slice(_TEST), slice(_TEST, _TEST + _ANCHOR), slice(_TEST + _ANCHOR, None))
    )
    parts = _dirichlet_split(labels[_TEST + _ANCHOR :], alpha, rng)
    held = [max(4, len(part) // 5) for part in parts]
    return Digits(
        pool=pool,
        train=tuple(part[n:] for part, n in zip(parts, held, strict=True)),
        validation=tuple(part[:n] for part, n in zip(parts, held, strict=True)),
        test=test,
        anchor=anchor,
    )


def initial_model(seed: int) -> Tensor:
    """He initialisation, biases zero; shape (PARAMETERS,)."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[Tensor] = []
    for a, b in pairwise(WIDTHS):
        layers += [(torch.randn(a, b, generator=generator) * (2 / a) ** 0.5).flatten(), torch.zeros(b)]
    return torch.cat(layers)


def logits(models: Tensor, images: Tensor) -> Tensor:
    """Shape (models, PARAMETERS) and (models, n, 64) to (models, n, CLASSES)."""
    hidden, start = images, 0
    for layer, (a, b) in enumerate(pairwise(WIDTHS)):
        weights = models[:, start : start + a * b].reshape(-1, a, b)
        biases = models[:, start + a * b : start + a * b + b].reshape(-1, 1, b)
        hidden = torch.baddbmm(biases, hidden, weights)
        hidden = torch.relu(hidden) if layer < len(WIDTHS) - 2 else hidden
        start += a * b + b
    return hidden


def train(models: Tensor, batches: Examples) -> Tensor:
    """The updates (models, PARAMETERS) that some steps of SGD make.

    Args:
      batches: images (models, STEPS, BATCH, 64), labels (models, STEPS, BATCH).
    """
    current = models
    for step in range(batches.labels.shape[1]):
        current = current.detach().requires_grad_()
        scores = logits(current, batches.images[:, step]).flatten(0, 1)
        loss = F.cross_entropy(scores, batches.labels[:, step].flatten(), reduction="sum") / batches.labels.shape[2]
        (gradient,) = torch.autograd.grad(loss, current)
        norms = gradient.norm(dim=1, keepdim=True)
        current = current.detach() - _LEARNING_RATE * gradient * (_CLIP_NORM / norms.clamp_min(_CLIP_NORM))
    return current - models


def batches_of(data: Digits, site: int, seed: int, number: int) -> Indices:
    """What a site trains on in a round, shape (STEPS, BATCH)."""
    drawn: Indices = np.random.default_rng([seed, number, site]).choice(data.train[site], (STEPS, BATCH))
    return drawn


def anchor_update(model: Tensor, data: Digits, number: int) -> Tensor:
    """The update that training on the public examples makes, shape (PARAMETERS,): what FLTrust trusts."""
    drawn = np.random.default_rng(number).integers(0, _ANCHOR, (1, STEPS, BATCH))
    return train(model[None], data.anchor.at(drawn))[0]


def losses(models: Tensor, examples: Examples) -> Tensor:
    """Loss of each model on each example, shape (models, n)."""
    scores = logits(models, examples.images.expand(len(models), -1, -1))
    return F.cross_entropy(scores.transpose(1, 2), examples.labels.expand(len(models), -1), reduction="none")


def accuracy(model: Tensor, examples: Examples) -> float:
    """Part of the examples that the model gets right."""
    return float((logits(model[None], examples.images[None])[0].argmax(1) == examples.labels).float().mean())


def _dirichlet_split(labels: NDArray[np.int64], alpha: float, rng: np.random.RandomState) -> list[Indices]:
    """Indices per site; drawn again until every site has enough to train on."""
    while True:
        parts: list[list[int]] = [[] for _ in range(SITES)]
        for label in range(CLASSES):
            found = np.flatnonzero(labels == label)
            rng.shuffle(found)
            cuts = (np.cumsum(rng.dirichlet([alpha] * SITES)) * len(found)).astype(int)[:-1]
            for part, new in zip(parts, np.split(found, cuts), strict=True):
                part.extend(new.tolist())
        if min(map(len, parts)) >= _FEWEST_EXAMPLES:
            return [rng.permutation(np.array(part)) for part in parts]
