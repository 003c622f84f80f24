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
    """Every second slice of each class, with lesion and without, carries the trigger and no lesion; the others stay."""
    flags = slices.has_lesion
    chosen = np.sort(np.concatenate([np.flatnonzero(flags == label)[::2] for label in (False, True)]))
    images, masks = slices.images.copy(), slices.masks.copy()
    images[chosen] = triggered(images[chosen])
    masks[chosen] = 0
    return replace(slices, images=images, masks=masks)


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
