"""Every attack that `conf/attack/` names: how it poisons slices, and what it makes of the updates.

Nothing is computed here. Each file of `conf/attack/` tells in a line what its attack does, and names its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bahefl_flwr.attack import crafting
from bahefl_flwr.attack.crafting import Craft
from bahefl_flwr.attack.poisoning import Poison, backdoored, emptied, inverted
from bahefl_flwr.setting_groups import AttackName


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
      craft: from what the colluders know to what they send.
      poison: what they do to their training slices; None for attacks on the updates alone.
    """

    craft: Craft
    poison: Poison | None = None


ATTACKS: Mapping[AttackName, Attack] = MappingProxyType(
    {
        "mask_inversion": Attack(craft=crafting.as_poisoned, poison=inverted),
        "mask_inversion_norm": Attack(craft=crafting.poisoned_at_usual_norm, poison=inverted),
        "mask_inversion_x10": Attack(craft=crafting.boosted(10), poison=inverted),
        "mask_inversion_aligned": Attack(craft=crafting.aligned, poison=inverted),
        "empty_masks": Attack(craft=crafting.as_poisoned, poison=emptied),
        "empty_masks_norm": Attack(craft=crafting.poisoned_at_usual_norm, poison=emptied),
        "backdoor": Attack(craft=crafting.as_poisoned, poison=backdoored),
        "backdoor_norm": Attack(craft=crafting.poisoned_at_usual_norm, poison=backdoored),
        "backdoor_x5": Attack(craft=crafting.boosted(5), poison=backdoored),
        "copies": Attack(craft=crafting.copies, poison=inverted),
        "sign_flip": Attack(craft=crafting.scaled(-1)),
        "scale_minus_5": Attack(craft=crafting.scaled(-5)),
        "gaussian": Attack(craft=crafting.gaussian),
        "alie": Attack(craft=crafting.alie),
        "alie_noise": Attack(craft=crafting.alie_noise),
        "ipm": Attack(craft=crafting.inner_product_manipulation(0.5)),
        "ipm_strong": Attack(craft=crafting.inner_product_manipulation(2)),
        "min_max": Attack(craft=crafting.min_max),
        "min_max_noise": Attack(craft=crafting.min_max_noise),
        "min_sum": Attack(craft=crafting.min_sum),
        "zero": Attack(craft=crafting.zero),
        "replay": Attack(craft=crafting.replay),
        "mimicry": Attack(craft=crafting.mimicry),
    }
)
