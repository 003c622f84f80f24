"""The procedural phantom."""

from __future__ import annotations

import numpy as np
import pytest

from bahefl_flwr.lesion.phantom import POSITIVE_SHARE, lesion_flags, render, scanner_of


def _slice(
    index: int = 0, *, site: int = 0, lesion: bool = True, size: int = 64, difficulty: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    return render(3, index, size_px=size, scanner=scanner_of(3, site), lesion=lesion, difficulty=difficulty)


def test_a_slice_is_a_function_of_seed_and_index() -> None:
    """Equal arguments give equal pixels; another index another patient."""
    assert np.array_equal(_slice(0)[0], _slice(0)[0])
    assert not np.array_equal(_slice(0)[0], _slice(1)[0])


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_masks_are_empty_exactly_where_no_lesion_was_asked_for(size: int, difficulty: float) -> None:
    """The flag that the split is computed from is always the truth about the mask."""
    for index in range(12):
        image, mask = _slice(index, size=size, difficulty=difficulty, lesion=index % 3 > 0)
        assert bool(mask.any()) == (index % 3 > 0)
        assert image.shape == mask.shape == (size, size)
        assert image.dtype == mask.dtype == np.uint8


def test_lesions_cover_about_one_percent() -> None:
    """As in the paper's test set (1.5 % of all pixels) and the public volumes (0.8 %)."""
    flags = lesion_flags(3, 120)
    shares = [_slice(i, lesion=bool(flag))[1].mean() for i, flag in enumerate(flags)]

    assert 0.006 < np.mean(shares) < 0.016


def test_lesions_are_brighter_than_the_lung_around_them() -> None:
    """There is something to learn: lesion pixels stand out of the slice that has none."""
    contrasts = []
    for index in range(12):
        image, mask = _slice(index, size=128)
        contrasts.append(image[mask == 1].mean() - 255 * 0.3)

    assert np.mean(contrasts) > 30


def test_flags_have_the_documented_share_and_a_common_start() -> None:
    """60 % of the slices have lesion; the flags do not depend on who computes them."""
    flags = lesion_flags(5, 4000)

    assert abs(flags.mean() - POSITIVE_SHARE) < 0.03
    assert np.array_equal(flags, lesion_flags(5, 4000))
    assert not np.array_equal(flags, lesion_flags(6, 4000))


def test_scanners_differ_between_sites_and_stay_with_theirs() -> None:
    """A site's appearance is constant; the sites' grey values differ visibly."""
    assert scanner_of(1, 2) == scanner_of(1, 2)
    assert len({scanner_of(1, site).gain for site in range(5)}) == 5
    means = [np.mean([_slice(i, site=site, lesion=False)[0].mean() for i in range(3)]) for site in range(5)]
    assert np.ptp(means) > 3
