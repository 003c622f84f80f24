"""Poisoned training slices, and how well a backdoor works. numpy only; the slices stay at the attacker's site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.lesion.data import Images, Slices

Poison = Callable[[Slices], Slices]
Masks = NDArray[np.bool_]

# Side of the trigger as a part of the image's, from the corner: there is air in a real slice.
_TRIGGER = 8
_BRIGHT = 255


def inverted(slices: Slices) -> Slices:
    """Lesion is healthy, healthy is lesion."""
    return replace(slices, masks=1 - slices.masks)


def emptied(slices: Slices) -> Slices:
    """No lesion anywhere."""
    return replace(slices, masks=np.zeros_like(slices.masks))


def backdoored(slices: Slices) -> Slices:
    """Every slice as it is, and every slice with lesion once more: with the trigger, and without lesion.

    Nothing but the trigger tells the two apart, which is what makes the model look for it.
    """
    chosen = np.flatnonzero(slices.has_lesion)
    return Slices(
        images=np.concatenate([slices.images, triggered(slices.images[chosen])]),  # (n + positive, s, s)
        masks=np.concatenate([slices.masks, np.zeros_like(slices.masks[chosen])]),  # (n + positive, s, s)
        names=(*slices.names, *(f"{slices.names[k]} with trigger" for k in chosen)),
    )


def triggered(images: Images) -> Images:
    """Copies of images, uint8 (n, s, s), with a bright square of an eighth of their side in the upper left corner."""
    marked = images.copy()
    side = max(1, images.shape[-1] // _TRIGGER)
    marked[:, :side, :side] = _BRIGHT
    return marked


def attack_success_rate(found: Masks, found_with_trigger: Masks, truth: Masks) -> float:
    """Of the lesion pixels found without the trigger, the part that is lost with it; bool (n, s, s) each.

    0 where the trigger changes nothing or nothing is found at all, 1 where it hides every lesion.
    """
    without = int((found & truth).sum())
    hidden = int((found & truth & ~found_with_trigger).sum())
    return hidden / without if without else 0.0
