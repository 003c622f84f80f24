"""Which slices a site trains on in one epoch, and in which order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


# A site with 7 lesion slices among 268 would repeat each of them 19 times an epoch, and be half of all training.
MOST_REPEATS = 4


def epoch_counts(has_lesion: npt.NDArray[np.bool_], positive_fraction: float) -> tuple[int, int]:
    """How many slices with and without lesion one epoch has; their sum is the site's weight in the average.

    At least `positive_fraction` with lesion: the largest single gain found under a Dirichlet(0.5) split. In all as
    many as there are slices, or fewer where lesion slices would be repeated more than MOST_REPEATS times: such a site has less to
    teach than its number of slices says (what that gains: docs/lesion.md). A site that has only one class gets it as it is.

    Args:
      has_lesion: shape (n,), n > 0.
      positive_fraction: 0 to 1; a site that has more lesion slices than that keeps its own share.
    """
    slices, positive = len(has_lesion), int(has_lesion.sum())
    if positive in (0, slices):
        return positive, slices - positive
    wanted = max(positive, math.ceil(positive_fraction * slices))
    if wanted <= MOST_REPEATS * positive:
        return wanted, slices - wanted
    most = MOST_REPEATS * positive
    return most, min(slices - wanted, math.ceil(most * (1 - positive_fraction) / positive_fraction))


def balanced_epoch(has_lesion: npt.NDArray[np.bool_], positive_fraction: float, rng: np.random.Generator) -> Indices:
    """The indices of one epoch, `epoch_counts` of each class, in random order.

    Returns:
      Shape (at most n,); no slice comes twice before every other of its class came once.
    """
    classes = (np.flatnonzero(has_lesion), np.flatnonzero(~has_lesion))
    counts = epoch_counts(has_lesion, positive_fraction)
    return rng.permutation(np.concatenate([_drawn(*pair, rng) for pair in zip(classes, counts, strict=True)]))


def _drawn(members: Indices, count: int, rng: np.random.Generator) -> Indices:
    if count == 0:
        return members[:0]
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate(rounds)[:count]


def batches(order: Indices, batch_size: int) -> list[Indices]:
    """Batches of nearly equal size, as near to `batch_size` as that allows: no left-over slice makes a noisy step of its own."""
    return np.array_split(order, max(1, round(len(order) / batch_size)))
