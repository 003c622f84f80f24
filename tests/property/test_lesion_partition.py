"""The split over sites and parts: what holds for every seed, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bahefl_flwr.errors import DataError
from bahefl_flwr.lesion.partition import MINIMUM, PARTS, SiteSlices, split, table, tally
from bahefl_flwr.setting_groups import DataSettings
from bahefl_flwr.settings import compose

BY_SLICE = compose([]).data
BY_PATIENT = compose(["data.split=patient"]).data


def _split(
    flags: np.ndarray, *, sites: int, seed: int = 0, data: DataSettings = BY_SLICE, scans: list[str | None] | None = None
) -> tuple[SiteSlices, ...]:
    return split(flags, scans or [None] * len(flags), data, sites=sites, seed=seed)


def _flags(positive: int, negative: int) -> np.ndarray:
    return np.random.default_rng(9).permutation(np.arange(positive + negative) < positive)


def _everything(parts: tuple[SiteSlices, ...]) -> list[int]:
    return sorted(int(i) for site in parts for part in PARTS for i in site.part(part))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    sites=st.integers(1, 8),
    alpha=st.sampled_from([0.01, 0.1, 0.5, 10.0]),
    positive=st.integers(80, 200),
    negative=st.integers(80, 200),
)
def test_every_site_has_both_classes_and_no_slice_is_lost(
    seed: int, sites: int, alpha: float, positive: int, negative: int
) -> None:
    """For every seed and alpha: each slice is dealt exactly once, and each site has its minimum of each class."""
    flags = _flags(positive, negative)

    parts = _split(flags, sites=sites, seed=seed, data=BY_SLICE.model_copy(update={"alpha": alpha}))

    counts = tally(parts, flags)
    assert _everything(parts) == list(range(len(flags)))
    assert (counts.min(axis=(0, 2)) >= [MINIMUM[part] for part in PARTS]).all()
    assert (counts.sum(axis=(0, 2)) / len(flags)) == pytest.approx([0.70, 0.15, 0.15], abs=0.02)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), sites=st.integers(1, 3), scans=st.integers(12, 40))
def test_no_scan_is_cut_in_two_parts(seed: int, sites: int, scans: int) -> None:
    """`split: patient` never trains on a scan it validates or tests on, at any site."""
    names = [f"scan{k % scans}" for k in range(scans * 12)]
    flags = np.arange(len(names)) // scans % 2 == 0  # each scan has six slices with lesion and six without

    parts = _split(flags, sites=sites, seed=seed, data=BY_PATIENT, scans=list(names))

    seen = [{names[i] for site in parts for i in site.part(part)} for part in PARTS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert _everything(parts) == list(range(len(names)))


def test_the_split_depends_on_seed_and_number_of_sites_only() -> None:
    """Every site process computes the same split alone."""
    flags = _flags(150, 100)

    first, again, other = (_split(flags, sites=5, seed=seed) for seed in (1, 1, 2))

    assert all(np.array_equal(a.train, b.train) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.train, b.train) for a, b in zip(first, other, strict=True))


def test_slices_of_unknown_scan_stay_together() -> None:
    """Two of them may be of one patient, so they are never in two parts."""
    scans = [None] * 40 + [f"scan{k // 10}" for k in range(200)]
    flags = np.arange(240) % 2 == 0

    parts = _split(flags, sites=2, data=BY_PATIENT, scans=scans)

    holders = [part for part in PARTS if any((site.part(part) < 40).any() for site in parts)]
    assert len(holders) == 1


@pytest.mark.parametrize("positive", [0, 100])
def test_one_class_alone_can_be_split(positive: int) -> None:
    """A minimum is only asked of a class that exists at all."""
    parts = _split(_flags(positive, 100 - positive), sites=4)

    assert all(len(site.train) >= MINIMUM["train"] for site in parts)


@pytest.mark.parametrize(
    ("sites", "data", "scans", "reason"),
    [
        (5, BY_SLICE, None, r"train part has 4 slices with lesion, but 5 sites need at least 2 each = 10"),
        (2, BY_PATIENT, None, r"at least 3 scans .* 0 found in 106 names"),
    ],
)
def test_impossible_splits_are_refused_with_the_reason(sites: int, data: DataSettings, scans: None, reason: str) -> None:
    """Too few slices of a class, or names that tell no scan."""
    with pytest.raises(DataError, match=reason):
        _split(_flags(6, 100), sites=sites, data=data, scans=scans)


def test_the_table_shows_every_site() -> None:
    """One line a site: with lesion + without, per part."""
    text = table(np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]]))

    assert text.splitlines() == [
        "site       train  validation        test",
        "   0         2+1         4+3         6+5",
        "   1         8+7        10+9       12+11",
    ]
