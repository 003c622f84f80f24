"""The thresholds of screening as integers, so that every site compares exactly. Their meaning: `settings.ScreeningSettings`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

from bahefl_flwr.screening.fixed_point import fixed
from bahefl_flwr.setting_groups import ScreeningSettings

_AS_THEY_ARE: Final = frozenset(("full_weight", "smallest_side", "policy"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What `decide` and `outcome_of` go by. Numbers are multiples of 2^-20 unless said otherwise.

    Attributes:
      full_weight: integer weight of an update that is not clipped, 1..8.
      smallest_side: fewest sites on a side of a split, a count; whoever opens a half learns the sum of so many updates.
      policy: `anchor` or `hold`: what decides a contested round.
    """

    full_weight: int
    zero_norm: int
    duplicate: int
    duplicate_share: int
    replay: int
    undoing: int
    undoing_common: int
    largest_norm: int
    clip_norm: int
    split: int
    split_margin: int
    smallest_side: int
    majority: int
    sure_majority: int
    sure_split: int
    clear_history: int
    policy: str

    @classmethod
    def of(cls, settings: ScreeningSettings, *, full_weight: int, min_sites: int) -> Self:
        """The rules of a run.

        Args:
          full_weight: 2**weight_bits of its encryption.
          min_sites: `federation.min_sites`; the ledger refuses halves of fewer, as it does whole aggregates.
        """
        scaled = {f.name: fixed(getattr(settings, f.name)) for f in fields(cls) if f.name not in _AS_THEY_ARE}
        smallest_side = max(settings.smallest_side, min_sites)
        return cls(full_weight=full_weight, smallest_side=smallest_side, policy=settings.policy, **scaled)
