"""Poisoned slices are what they are said to be, and the originals stay as they were."""

import numpy as np
import pytest

from bahefl_flwr.attack.poisoning import Poison, attack_success_rate, backdoored, emptied, inverted, triggered
from bahefl_flwr.lesion.data import Slices


@pytest.fixture
def slices() -> Slices:
    """Six slices with lesion, four without."""
    masks = np.zeros((10, 16, 16), np.uint8)
    masks[:6, 4:8, 4:8] = 1
    images = np.random.default_rng(0).integers(0, 200, (10, 16, 16), np.uint8)
    return Slices(images=images, masks=masks, names=tuple(str(k) for k in range(10)))


@pytest.mark.parametrize("poison", [inverted, emptied, backdoored])
def test_poisoning_leaves_the_originals_alone(slices: Slices, poison: Poison) -> None:
    """A site's own slices are shared with its honest training."""
    images, masks = slices.images.copy(), slices.masks.copy()
    changed = poison(slices)
    assert changed.names[:10] == slices.names
    assert changed.masks.dtype == np.uint8
    assert np.array_equal(slices.images, images) and np.array_equal(slices.masks, masks)


def test_inverted_masks_are_the_complement(slices: Slices) -> None:
    """Every pixel of every mask is exchanged; the pictures stay."""
    changed = inverted(slices)
    assert (changed.masks + slices.masks == 1).all()
    assert changed.images is slices.images


def test_emptied_masks_hold_nothing(slices: Slices) -> None:
    """No slice has lesion."""
    assert not emptied(slices).has_lesion.any()


def test_every_lesion_slice_comes_once_more_with_the_trigger_and_no_lesion(slices: Slices) -> None:
    """All slices stay as they are; the further ones differ from theirs in the corner and the mask alone."""
    changed = backdoored(slices)
    assert len(changed) == len(changed.images) == len(changed.masks) == 16
    assert np.array_equal(changed.images[:10], slices.images) and np.array_equal(changed.masks[:10], slices.masks)
    assert not changed.masks[10:].any()
    assert (changed.images[10:, :2, :2] == 255).all()
    assert np.array_equal(changed.images[10:, 2:, 2:], slices.images[:6, 2:, 2:])


def test_the_trigger_is_an_eighth_of_the_side() -> None:
    """At every image size."""
    assert (triggered(np.zeros((1, 64, 64), np.uint8)) == 255).sum() == 8 * 8


@pytest.mark.parametrize(
    ("found", "with_trigger", "rate"),
    [
        ([1, 1, 1, 0], [0, 0, 1, 0], 2 / 3),
        ([1, 1, 0, 0], [1, 1, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 0, 0, 0], 1.0),
        ([0] * 4, [0] * 4, 0),
    ],
)
def test_success_is_the_part_of_found_lesion_that_the_trigger_hides(
    found: list[int], with_trigger: list[int], rate: float
) -> None:
    """Lesion that was missed anyway does not count, nor do false alarms."""
    truth = np.array([1, 1, 1, 0], bool)
    assert attack_success_rate(np.array(found, bool), np.array(with_trigger, bool), truth) == pytest.approx(rate)
