"""The strongest attackers of the robustness benchmark: they see every honest update and the accepted history.

Each attack is a pure function; simulated federations use the weaker ones of `bahefl_flwr.attack`, which see their own data only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from robustness_task import BATCH, CLASSES, Examples
from torch import Tensor

TRIGGER: Final = (0, 7, 56, 63)
_BRIGHT: Final = 0.7
_BISECTIONS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the attackers know in a round.

    Attributes:
      own: updates of the attackers as their data (poisoned or not) make them, (attackers, parameters).
      honest: (honest sites, parameters).
      recent: running mean of the accepted updates, (parameters,); None before the first.
      noise: draws standard normal (attackers, parameters).
    """

    own: Tensor
    honest: Tensor
    recent: Tensor | None
    noise: Callable[[], Tensor]

    @property
    def mean(self) -> Tensor:
        """Mean honest update."""
        return self.honest.mean(0)

    @property
    def spread(self) -> Tensor:
        """Standard deviation of the honest updates, per parameter."""
        return self.honest.std(0)

    @property
    def usual_norm(self) -> Tensor:
        """Median norm of the honest updates."""
        return self.honest.norm(dim=1).median()


Craft = Callable[[Sight], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """How the attackers' data are poisoned (`flip`, `backdoor` or empty) and what becomes of their updates."""

    craft: Craft
    data: str = ""


def poison(kind: str, batches: Examples) -> Examples:
    """The batches of one attacker, images (STEPS, BATCH, 64)."""
    if kind == "flip":
        return Examples(images=batches.images, labels=CLASSES - 1 - batches.labels)
    if kind == "backdoor":
        images, labels = batches.images.clone(), batches.labels.clone()
        images[:, : BATCH // 2] = triggered(images[:, : BATCH // 2])
        labels[:, : BATCH // 2] = 0
        return Examples(images=images, labels=labels)
    return batches


def triggered(images: Tensor) -> Tensor:
    """The same images with bright corners."""
    marked = images.clone()
    marked[..., TRIGGER] = _BRIGHT
    return marked


def _scaled(factor: float) -> Craft:
    return lambda sight: factor * sight.own


def _to_norm(vectors: Tensor, norm: Tensor | float) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12) * norm


def _usual_length(sight: Sight) -> Tensor:
    return _to_norm(sight.own, sight.usual_norm)


def _copies(sight: Sight) -> Tensor:
    return _to_norm(sight.own.mean(0), sight.usual_norm).expand_as(sight.own)


def _gauss(sight: Sight) -> Tensor:
    return _to_norm(sight.noise(), 3 * sight.usual_norm)


def _alie(sight: Sight) -> Tensor:
    """Baruch et al. 2019: a little less than the honest mean in every parameter, within the honest spread."""
    return (sight.mean - 1.5 * sight.spread).expand_as(sight.own)


def _noisy_alie(sight: Sight) -> Tensor:
    """The same with the dispersion of honest sites, so that the attackers do not look alike."""
    return _to_norm(_alie(sight) + 0.8 * sight.noise() * sight.spread, sight.usual_norm)


def _inner_product(factor: float) -> Craft:
    """Xie et al. 2019: against the honest mean."""
    return lambda sight: (-factor * sight.mean).expand_as(sight.own)


def _min(aggregate: Callable[[Tensor], Tensor]) -> Craft:
    """Shejwalkar and Houmansadr 2021: as far from the mean as the honest sites are from each other."""

    def craft(sight: Sight) -> Tensor:
        away = -_to_norm(sight.spread, 1.0)
        bound = _largest_honest(sight.honest, aggregate)
        low, high = 0.0, 50 * float(sight.usual_norm)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            distances = (sight.honest - sight.mean - middle * away).square().sum(1)
            low, high = (middle, high) if aggregate(distances) <= bound else (low, middle)
        return (sight.mean + low * away).expand_as(sight.own)

    return craft


def _largest_honest(honest: Tensor, aggregate: Callable[[Tensor], Tensor]) -> Tensor:
    distances = torch.cdist(honest, honest).square()
    return torch.stack([aggregate(row) for row in distances]).max()


def _noisy_min_max(sight: Sight) -> Tensor:
    centre = _min(torch.max)(sight)
    return _to_norm(centre + 0.8 * _to_norm(sight.noise(), centre.norm(dim=1, keepdim=True)), sight.usual_norm)


def _zero(sight: Sight) -> Tensor:
    return 1e-6 * sight.noise()


def _replay(sight: Sight) -> Tensor:
    known = torch.zeros_like(sight.mean) if sight.recent is None else _to_norm(sight.recent, sight.usual_norm)
    return known + 1e-4 * sight.noise()


def _aligned(sight: Sight) -> Tensor:
    """Adaptive: flipped labels, as well aligned with the history as honest updates, and as long."""
    if sight.recent is None:
        return _usual_length(sight)
    along = _to_norm(sight.recent, 1.0)
    cosine = ((sight.honest @ along) / sight.honest.norm(dim=1)).median()
    across = _to_norm(sight.own - (sight.own @ along)[:, None] * along, 1.0)
    return sight.usual_norm * (cosine * along + (1 - cosine**2).sqrt() * across)


def _mimicry(sight: Sight) -> Tensor:
    """Adaptive: honest in every cosine with each other and with the history, reversed in all that honest sites share besides."""
    along = torch.zeros_like(sight.mean) if sight.recent is None else _to_norm(sight.recent, 1.0)
    cosine = ((sight.honest @ along) / sight.honest.norm(dim=1)).median()
    shared = sight.mean - (sight.mean @ along) * along
    across = sight.own - (sight.own @ along)[:, None] * along
    across -= 2 * ((across @ shared) / shared.square().sum().clamp_min(1e-12))[:, None] * shared
    return sight.usual_norm * (cosine * along + (1 - cosine**2).sqrt() * _to_norm(across, 1.0))


ATTACKS: Final[Mapping[str, Attack]] = {
    "label flip": Attack(data="flip", craft=_scaled(1)),
    "label flip, usual norm": Attack(data="flip", craft=_usual_length),
    "label flip x10": Attack(data="flip", craft=_scaled(10)),
    "label flip, copies": Attack(data="flip", craft=_copies),
    "sign flip": Attack(craft=_scaled(-1)),
    "sign flip x5": Attack(craft=_scaled(-5)),
    "Gaussian": Attack(craft=_gauss),
    "ALIE": Attack(craft=_alie),
    "IPM 0.5": Attack(craft=_inner_product(0.5)),
    "IPM 2": Attack(craft=_inner_product(2.0)),
    "min-max": Attack(craft=_min(torch.max)),
    "min-sum": Attack(craft=_min(torch.sum)),
    "zero": Attack(craft=_zero),
    "replay": Attack(craft=_replay),
    "noisy ALIE": Attack(craft=_noisy_alie),
    "noisy min-max": Attack(craft=_noisy_min_max),
    "aligned label flip": Attack(data="flip", craft=_aligned),
    "mimicry": Attack(craft=_mimicry),
    "backdoor": Attack(data="backdoor", craft=_scaled(1)),
    "backdoor, usual norm": Attack(data="backdoor", craft=_usual_length),
    "backdoor x5": Attack(data="backdoor", craft=_scaled(5)),
}
ADAPTIVE: Final = ("noisy ALIE", "noisy min-max", "aligned label flip", "mimicry")
BACKDOORS: Final = ("backdoor", "backdoor, usual norm", "backdoor x5")
