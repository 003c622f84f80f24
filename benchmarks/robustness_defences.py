"""What the robustness benchmark compares: known aggregation rules, and `bahefl_flwr.screening` on integer sketches.

A defence takes one round's updates and gives the model's update and who is in it. Only ours keeps a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from robustness_task import PARAMETERS, SITES, Digits, anchor_update, losses
from torch import Tensor

from bahefl_flwr.records import RoundOutcome, members_in
from bahefl_flwr.screening.acceptance import accepted, next_history
from bahefl_flwr.screening.ballots import anchor_choice, ballot_of, outcome_of
from bahefl_flwr.screening.decision import Decision, decide
from bahefl_flwr.screening.figures import Sketch, figures
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules
from bahefl_flwr.settings import compose

# As he/sketch_plan.py with a ring small enough that this small model fills four blocks of three fields.
_RING: Final = 512
_GROUPS: Final = 256
_FIELDS: Final = 3
_BUCKETS: Final = 16
_BLOCKS: Final = -(-PARAMETERS // (_FIELDS * _RING))
_RANGE: Final = 0.25
_FIELD_SCALE: Final = 15872

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a defence sees.

    Attributes:
      updates: float32 (SITES, PARAMETERS), clipped to the range of the encryption.
      model: before the round, (PARAMETERS,). number: from 0.
      hostile: True for the attackers; only to simulate their ballots, and Krum is told how many there are.
      recent, drift: running mean of the accepted updates, and all that was accepted so far.
    """

    updates: Tensor
    model: Tensor
    number: int
    data: Digits
    hostile: Mask
    recent: Tensor
    drift: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The model's update, and who is part of it; None where the question has no answer."""

    update: Tensor
    taken: Mask | None
    held: bool = False
    conflict: bool = False


class Defence(Protocol):
    """One run's aggregation rule, with whatever it remembers."""

    def __call__(self, seen: Round) -> Verdict:
        """Aggregate a round."""


def clipped(updates: Tensor) -> Tensor:
    """Every value within the range that the encryption holds."""
    return updates.clamp(-_RANGE, _RANGE)


def _fedavg(seen: Round) -> Verdict:
    return Verdict(update=seen.updates.mean(0), taken=np.ones(SITES, bool))


def _median(seen: Round) -> Verdict:
    ordered = seen.updates.sort(0).values
    return Verdict(update=ordered[(SITES - 1) // 2 : SITES // 2 + 1].mean(0), taken=None)


def _krum(seen: Round) -> Verdict:
    """Blanchard et al. 2017, told the true number of attackers."""
    hostile = min(max(1, int(seen.hostile.sum())), SITES - 3)
    distances = torch.cdist(seen.updates, seen.updates).square().sort(1).values
    best = int(distances[:, 1 : max(2, SITES - hostile - 1)].sum(1).argmin())
    return Verdict(update=seen.updates[best], taken=np.arange(SITES) == best)


def _flame(seen: Round) -> Verdict:
    """Nguyen et al. 2022: the largest cluster of cosines, clipped to the median norm; without its noise."""
    from sklearn.cluster import HDBSCAN

    norms = seen.updates.norm(dim=1).double()
    directions = seen.updates.double() / norms.clamp_min(1e-12)[:, None]
    distances = (1 - directions @ directions.T).clamp(0, 2).fill_diagonal_(0).numpy()
    finder = HDBSCAN(metric="precomputed", min_cluster_size=SITES // 2 + 1, min_samples=1, allow_single_cluster=True, copy=True)
    labels = finder.fit_predict((distances + distances.T) / 2)
    taken = labels == np.bincount(labels[labels >= 0]).argmax() if labels.max() >= 0 else np.ones(SITES, bool)
    factors = torch.tensor(taken) * (norms.median() / norms.clamp_min(1e-12)).clamp_max(1) / taken.sum()
    return Verdict(update=factors.float() @ seen.updates, taken=taken)


def _fltrust(seen: Round) -> Verdict:
    """Cao et al. 2021: weights by cosine with an update from trusted data, of which it is given the true distribution."""
    root = anchor_update(seen.model, seen.data, seen.number)
    norms = seen.updates.norm(dim=1).clamp_min(1e-12)
    trust = (seen.updates @ root / (norms * root.norm())).clamp_min(0)
    factors = trust / trust.sum().clamp_min(1e-9) * root.norm() / norms
    return Verdict(update=factors @ seen.updates, taken=(trust > 0).numpy())


@dataclass(slots=True, kw_only=True)
class Screened:
    """Our screening, as a run has it: sketches, decision, ballots, anchor, history."""

    rules: Rules
    gain: float
    history: History = field(default_factory=History.empty)

    def __call__(self, seen: Round) -> Verdict:
        """Sketch, decide, vote where it is a conflict, and add with integer weights."""
        found = figures(_sketches(seen), SITES, _references(seen) if self.history.rounds else {})
        decision = decide(found, self.history, self.rules, {})
        outcome = self._outcome(decision, seen)
        self.history = next_history(self.history, found, decision, outcome)
        members = accepted(decision, outcome)
        held = outcome == RoundOutcome.NONE
        taken = np.isin(np.arange(SITES), members_in(members))
        return Verdict(
            update=_mean(decision, members, seen), taken=None if held else taken, held=held, conflict=bool(decision.halves)
        )

    def _outcome(self, decision: Decision, seen: Round) -> RoundOutcome:
        if not decision.halves:
            return RoundOutcome.WHOLE
        candidates = [
            seen.model + _mean(decision, accepted(decision, o), seen)
            for o in (RoundOutcome.WHOLE, RoundOutcome.FIRST, RoundOutcome.SECOND)
        ]
        models = torch.stack(candidates)
        anchor = losses(models, seen.data.anchor).mean(1).tolist()
        ballots = _ballots(models, seen, self.gain)
        return outcome_of(decision, self.history, self.rules, ballots, lambda: anchor_choice(*anchor))


def _ballots(models: Tensor, seen: Round, gain: float) -> dict[int, int]:
    """Honest sites vote by their validation loss; attackers all for what harms the honest ones most."""
    own = torch.stack([losses(models, seen.data.pool.at(part)).mean(1) for part in seen.data.validation])  # (sites, candidates)
    worst = int(own[torch.tensor(~seen.hostile)].mean(0).argmax())
    honest = {site: ballot_of(*row.tolist(), gain=gain) for site, row in enumerate(own)}
    return {site: worst if seen.hostile[site] else vote for site, vote in honest.items()}


def _mean(decision: Decision, members: int, seen: Round) -> Tensor:
    """The weighted mean of the members' updates; zero for nobody."""
    weights = torch.zeros(SITES)
    for member in members_in(members):
        weights[member] = decision.weights[member]
    return weights / weights.sum().clamp_min(1) @ seen.updates


def _sketches(seen: Round) -> dict[int, Sketch]:
    encoded = (seen.updates.double() * (_FIELD_SCALE / (SITES * _RANGE))).round().long()
    values = sketch_of(encoded, seen.number)
    return {site: Sketch(values=value, weight=1, in_range=True) for site, value in enumerate(values)}


def _references(seen: Round) -> Mapping[str, NDArray[np.int64]]:
    encoded = (torch.stack([seen.recent, seen.drift]).double() * (_FIELD_SCALE / _RANGE)).round().long()
    recent, drift = sketch_of(encoded, seen.number)
    return {"recent": recent, "drift": drift}


def sketch_of(vectors: Tensor, number: int) -> NDArray[np.int64]:
    """Sketches of integer vectors (n, PARAMETERS) with the map of one round: int64 (n, groups, fields)."""
    places, signs = _map(number)
    sums = torch.zeros(len(vectors), _GROUPS * _FIELDS, dtype=torch.int64)
    sums.index_add_(1, places, vectors * signs)
    return sums.numpy().reshape(-1, _GROUPS, _FIELDS)


@lru_cache(maxsize=64)
def _map(number: int) -> tuple[Tensor, Tensor]:
    """Where each parameter goes and with which sign: blocks times +-X^k by bucket, then coefficients by random groups."""
    rng = np.random.default_rng([77, number])
    field_of, block, coefficient = np.unravel_index(np.arange(_FIELDS * _BLOCKS * _RING), (_FIELDS, _BLOCKS, _RING))
    block_signs, buckets = rng.choice([-1, 1], _BLOCKS), rng.integers(0, _BUCKETS, _BLOCKS)
    turned = coefficient + rng.integers(0, 2 * _RING, _BUCKETS)[buckets][block]
    signs = block_signs[block] * np.where(turned // _RING % 2, -1, 1)  # X^N = -1
    groups = rng.permutation(_RING) // (_RING // _GROUPS)
    group_signs = rng.choice([-1, 1], _RING)
    places = groups[turned % _RING] * _FIELDS + field_of
    signs *= group_signs[turned % _RING]
    return torch.tensor(places[:PARAMETERS]), torch.tensor(signs[:PARAMETERS])


def _screened(policy: str) -> Screened:
    settings, federation = compose().screening, compose().federation
    rules = Rules.of(settings, full_weight=8, min_sites=federation.min_sites)
    return Screened(rules=replace(rules, policy=policy), gain=settings.ballot_gain)


DEFENCES: Final[Mapping[str, Callable[[], Defence]]] = {
    "FedAvg": lambda: _fedavg,
    "Krum": lambda: _krum,
    "median": lambda: _median,
    "FLAME": lambda: _flame,
    "FLTrust": lambda: _fltrust,
    "ours, hold": lambda: _screened("hold"),
    "ours, anchor": lambda: _screened("anchor"),
}
OURS: Final = ("ours, hold", "ours, anchor")
