"""Balanced local epochs."""

from __future__ import annotations

import numpy as np
import pytest

from bahefl_flwr.lesion.sampling import balanced_epoch, batches, epoch_counts


def _flags(positive: int, negative: int) -> np.ndarray:
    return np.arange(positive + negative) < positive


@pytest.mark.parametrize(
    ("positive", "negative", "fraction", "expected"),
    [(3, 17, 0.5, 10), (15, 5, 0.5, 15), (3, 17, 0.0, 3), (5, 0, 0.5, 5), (0, 5, 0.5, 0), (1, 2, 1.0, 3)],
)
def test_an_epoch_has_the_asked_share_of_lesion_slices(positive: int, negative: int, fraction: float, expected: int) -> None:
    """At least the asked share, never fewer than there are, and one-class sites are left as they are."""
    order = balanced_epoch(_flags(positive, negative), fraction, np.random.default_rng(0))

    assert len(order) == positive + negative
    assert int((order < positive).sum()) == expected


def test_repeats_are_spread_evenly() -> None:
    """Three lesion slices drawn ten times come three or four times each."""
    order = balanced_epoch(_flags(3, 17), 0.5, np.random.default_rng(0))

    assert set(np.bincount(order[order < 3])) <= {3, 4}


@pytest.mark.parametrize(("fraction", "negatives"), [(0.5, 28), (0.25, 84), (1.0, 0)])
def test_no_lesion_slice_is_repeated_more_than_four_times(fraction: float, negatives: int) -> None:
    """Seven of 268 slices have lesion: a shorter epoch of the same shares, instead of each of the seven 19 times."""
    order = balanced_epoch(_flags(7, 261), fraction, np.random.default_rng(0))

    assert set(np.bincount(order[order < 7])) == {4}
    assert epoch_counts(_flags(7, 261), fraction) == (28, negatives) == (28, int((order >= 7).sum()))


@pytest.mark.parametrize("slices", [1, 5, 8, 9, 12, 100])
def test_batches_use_every_slice_and_none_is_tiny(slices: int) -> None:
    """Nothing is left over, and no batch is below half the asked size unless the site is."""
    cut = batches(np.arange(slices), 8)

    assert sorted(np.concatenate(cut)) == list(range(slices))
    assert min(len(batch) for batch in cut) >= min(slices, 5)
