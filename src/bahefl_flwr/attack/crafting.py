"""What colluders send instead of their honest updates: pure functions of what they know. numpy only.

Never an honest site's update: what the sites have in common is estimated from the colluders' own benign updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Updates = NDArray[np.float64]
"""One update a row, shape (m, P): m colluders, P parameters."""
Vector = NDArray[np.float64]

# How the screening weighs the past (docs/screening.md): public, so the colluders know it too.
_MEMORY = 0.8
# Deviations below the mean: the figure of ALIE's own experiments. Their formula gives less where screening is no majority rule.
_ALIE_DEVIATIONS = 1.5
# Of an update's own length: as unlike each other as benign updates are, and still pulling the same way.
_DISGUISE = 0.8
_ALMOST_NOTHING = 1e-6
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the colluders know when a round's updates are due.

    Attributes:
      benign: what honest training gives each of them, (m, P).
      poisoned: what training on poisoned slices gives each of them, (m, P); `benign` where the attack poisons no slices.
      last: the last accepted mean update, (P,); zeros before the first.
      recent: exponential mean of the accepted mean updates, (P,); zeros before the first.
      drift: from the first global model to the present one, (P,).
      seed: of their noise; equal seeds give equal updates.
    """

    benign: Updates
    poisoned: Updates
    last: Vector
    recent: Vector
    drift: Vector
    seed: Sequence[int]

    @property
    def sample(self) -> Updates:
        """What mean and deviation of the honest updates are estimated from, (at least 2, P).

        The colluders' benign updates, as in the papers. A lone attacker has one: the last accepted mean update is its second.
        """
        return self.benign if len(self.benign) > 1 else np.stack([self.benign[0], self.last])

    @property
    def usual_norm(self) -> float:
        """Median length of the colluders' benign updates."""
        return float(np.median(_norms(self.benign)))

    @property
    def forwards(self) -> Vector:
        """Unit vector between the directions of `recent` and `drift`, (P,): what the screening calls aligned. Zeros at first."""
        return _unit(_unit(self.recent) + _unit(self.drift))

    def noise(self) -> Updates:
        """Standard normal, (m, P)."""
        return np.random.default_rng(self.seed).standard_normal(self.benign.shape)


Craft = Callable[[Knowledge], Updates]


def knowledge(benign: Updates, poisoned: Updates, models: Sequence[Vector], seed: Sequence[int]) -> Knowledge:
    """What follows from the global models seen so far, oldest first and the present one last; each (P,).

    A round that was held moved nothing, and is no accepted update.
    """
    steps = [after - before for before, after in pairwise(models)]
    accepted = [step for step in steps if step.any()]
    recent = last = np.zeros_like(models[-1])
    for number, last in enumerate(accepted):
        recent = _MEMORY * recent + (1 - _MEMORY) * last if number else last
    return Knowledge(benign=benign, poisoned=poisoned, last=last, recent=recent, drift=models[-1] - models[0], seed=seed)


def as_poisoned(known: Knowledge) -> Updates:
    """Training on poisoned slices is the whole attack."""
    return known.poisoned


def poisoned_at_usual_norm(known: Knowledge) -> Updates:
    """As long as a benign update."""
    return _at_norm(known.poisoned, known.usual_norm)


def boosted(factor: float) -> Craft:
    """The poisoned updates times `factor`."""
    return lambda known: factor * known.poisoned


def aligned(known: Knowledge) -> Updates:
    """The poisoned update, turned until it goes as far forwards as a benign one, at a benign one's length."""
    return _disguised(known.poisoned, known)


def copies(known: Knowledge) -> Updates:
    """The mean of the poisoned updates from everybody, as long as a benign update."""
    mean = known.poisoned.mean(axis=0, keepdims=True)  # (1, P)
    return np.repeat(_at_norm(mean, known.usual_norm), len(known.benign), axis=0)  # (m, P)


def scaled(factor: float) -> Craft:
    """The benign updates times `factor`."""
    return lambda known: factor * known.benign


def gaussian(known: Knowledge) -> Updates:
    """Random directions, three times as long as a benign update."""
    return _at_norm(known.noise(), 3 * known.usual_norm)


def alie(known: Knowledge) -> Updates:
    """Mean less 1.5 deviations, parameter by parameter. Source: Baruch et al., NeurIPS 2019, algorithm 3."""
    sample = known.sample
    return _by_all(sample.mean(axis=0) - _ALIE_DEVIATIONS * sample.std(axis=0, ddof=1), known)


def alie_noise(known: Knowledge) -> Updates:
    """`alie`, with noise as large as 0.8 deviations, as long as a benign update."""
    noise = _DISGUISE * known.sample.std(axis=0, ddof=1) * known.noise()  # (m, P)
    return _at_norm(alie(known) + noise, known.usual_norm)


def inner_product_manipulation(factor: float) -> Craft:
    """-`factor` times the mean. Source: Xie et al., UAI 2019, section 3."""
    return lambda known: _by_all(-factor * known.sample.mean(axis=0), known)


def min_max(known: Knowledge) -> Updates:
    """As far against the deviation as the largest distance to a benign update stays that between two of them.

    Source: Shejwalkar and Houmansadr, NDSS 2021, section IV-C, equation 6, perturbation "inverse standard deviation". They search
    for the factor by halving; it is the root of a quadratic equation for each benign update.
    """
    offsets, direction = _offsets(known)
    squared = np.square(offsets).sum(axis=1)  # (n,)
    along = offsets @ direction  # (n,)
    spare = np.maximum(0.0, _squared_distances(known.sample).max() - squared)
    factor = float(np.min(along + np.sqrt(along**2 + spare)))
    return _by_all(known.sample.mean(axis=0) + factor * direction, known)


def min_sum(known: Knowledge) -> Updates:
    """As far as the sum of squared distances to the benign updates stays the largest that one of them has.

    Source: as `min_max`, equation 7. The distances' part along the direction sums up to zero, so the root is plain.
    """
    offsets, direction = _offsets(known)
    spare = max(0.0, float(_squared_distances(known.sample).sum(axis=1).max() - np.square(offsets).sum()))
    return _by_all(known.sample.mean(axis=0) + np.sqrt(spare / len(offsets)) * direction, known)


def min_max_noise(known: Knowledge) -> Updates:
    """`min_max`, with noise of 0.8 times its length, as long as a benign update."""
    crafted = min_max(known)
    noise = _at_norm(known.noise(), 1.0) * _norms(crafted)[:, None]  # (m, P)
    return _at_norm(crafted + _DISGUISE * noise, known.usual_norm)


def zero(known: Knowledge) -> Updates:
    """A millionth of a benign update, in a random direction."""
    return _at_norm(known.noise(), _ALMOST_NOTHING * known.usual_norm)


def replay(known: Knowledge) -> Updates:
    """The last accepted mean update at the length of a benign one, and a thousandth of noise; before the first, benign."""
    if not known.last.any():
        return known.benign
    noise = _at_norm(known.noise(), 1e-3)  # (m, P)
    return _at_norm(_unit(known.last) + noise, known.usual_norm)


def mimicry(known: Knowledge) -> Updates:
    """The benign update, mirrored in what the sites have in common besides the way forwards; then as `aligned`."""
    forwards = known.forwards
    common = _unit(_across(known.sample.mean(axis=0), forwards))
    return _disguised(known.benign - 2 * np.outer(known.benign @ common, common), known)


def _disguised(updates: Updates, known: Knowledge) -> Updates:
    """The same updates with the part along `forwards` replaced by that of a benign update, and with its length."""
    forwards = known.forwards
    if not forwards.any():
        return _at_norm(updates, known.usual_norm)
    cosine = float(np.median(known.benign @ forwards / np.maximum(_norms(known.benign), _TINY)))
    sideways = _at_norm(_across(updates, forwards), 1.0)  # (m, P)
    return np.asarray(known.usual_norm * (cosine * forwards + np.sqrt(max(0.0, 1 - cosine**2)) * sideways))


def _across(updates: Updates, direction: Vector) -> Updates:
    """Less the part along a unit vector."""
    return np.asarray(updates - np.multiply.outer(updates @ direction, direction))


def _offsets(known: Knowledge) -> tuple[Updates, Vector]:
    """The sample less its mean, (n, P), and the unit vector against its deviation, (P,)."""
    sample = known.sample
    return sample - sample.mean(axis=0), -_unit(sample.std(axis=0, ddof=1))


def _squared_distances(sample: Updates) -> Updates:
    """Between every two rows, (n, n)."""
    return np.stack([np.square(sample - row).sum(axis=1) for row in sample])


def _by_all(update: Vector, known: Knowledge) -> Updates:
    return np.repeat(update[None], len(known.benign), axis=0)  # (m, P)


def _at_norm(updates: Updates, norm: float) -> Updates:
    return np.asarray(norm * updates / np.maximum(_norms(updates), _TINY)[:, None])


def _norms(updates: Updates) -> Vector:
    return np.asarray(np.linalg.norm(updates, axis=1))


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), _TINY))
