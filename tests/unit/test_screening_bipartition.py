"""The split test: every split up to 16 sites, and camps that stand out beyond."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from bahefl_flwr.records import mask_of, members_in
from bahefl_flwr.screening.bipartition import best_bipartition
from bahefl_flwr.screening.fixed_point import ONE


def cosines(sites: int, seed: int, camp: frozenset[int] = frozenset(), gap: float = 0.0) -> NDArray[np.int64]:
    """Noisy cosines around .3, lower by `gap` between the camp and the others."""
    rng = np.random.default_rng(seed)
    drawn = 0.3 + 0.1 * rng.normal(size=(sites, sites))
    inside = np.isin(np.arange(sites), list(camp))
    drawn -= gap * (inside[:, None] != inside)
    upper = np.triu(np.rint(drawn.clip(-1, 1) * ONE).astype(np.int64), 1)
    table: NDArray[np.int64] = upper + upper.T
    return table


def sums(table: NDArray[np.int64], first: Iterable[int], second: Iterable[int] | None = None) -> Fraction:
    """Mean cosine of the pairs within one set, or between two."""
    pairs = list(combinations(first, 2)) if second is None else list(product(first, second))
    return Fraction(sum(int(table[p, q]) for p, q in pairs), len(pairs))


def separation(table: NDArray[np.int64], second: frozenset[int]) -> Fraction:
    """Mean over all pairs within camps minus mean between, exactly."""
    first = frozenset(range(len(table))) - second
    inside = [int(table[p, q]) for camp in (first, second) for p, q in combinations(camp, 2)]
    return Fraction(sum(inside), len(inside)) - sums(table, first, second)


def closeness(table: NDArray[np.int64], second: frozenset[int]) -> Fraction:
    """The camps' own means, each by its part of the sites, less the mean between, exactly."""
    first = frozenset(range(len(table))) - second
    camps = len(first) * sums(table, first) + len(second) * sums(table, second)
    return camps / len(table) - sums(table, first, second)


@pytest.mark.parametrize("sites", [6, 7, 9])
def test_best_split_is_the_best_by_definition(sites: int) -> None:
    """No split with three a side separates more than is said, and none has closer camps than those named."""
    table = cosines(sites, seed=sites)
    found = best_bipartition(table, 3)
    assert found is not None
    splits = [frozenset(c) for n in range(3, sites - 2) for c in combinations(range(1, sites), n)]
    assert found.separation == max(separation(table, second) for second in splits).__floor__()
    assert found.second == mask_of(max(splits, key=lambda second: closeness(table, second)))


def test_tight_camp_does_not_draw_unlike_sites_in() -> None:
    """Five sites that are alike and five that have little in common: the camps are those, not the tight one with two others."""
    table = np.full((10, 10), -ONE // 20, dtype=np.int64)
    table[:5, :5] = 0
    table[5:, 5:] = ONE // 2
    table[3:5, 5:] = table[5:, 3:5] = ONE // 10
    found = best_bipartition(table, 3)
    assert found is not None
    assert members_in(found.second) == (5, 6, 7, 8, 9)
    assert separation(table, frozenset(range(3, 10))) > separation(table, frozenset(range(5, 10)))


@pytest.mark.parametrize(("sites", "camp"), [(16, (1, 4, 9)), (16, (2, 3, 5, 7, 11, 13, 15, 8))])
def test_planted_camp_is_found_among_sixteen(sites: int, camp: tuple[int, ...]) -> None:
    """At the limit of the exhaustive search the planted camp is the answer."""
    found = best_bipartition(cosines(sites, 3, frozenset(camp), gap=0.5), 3)
    assert found is not None
    assert members_in(found.second) == tuple(sorted(camp))


@pytest.mark.parametrize("sites", [17, 30, 60, 255])
@pytest.mark.parametrize("part", [0.1, 0.3, 0.5])
def test_planted_camp_is_found_beyond_sixteen(sites: int, part: float) -> None:
    """The greedy search finds camps of any size that stand out."""
    size = max(3, int(part * sites))
    camp = frozenset(int(p) for p in np.random.default_rng(sites).permutation(np.arange(1, sites))[:size])
    found = best_bipartition(cosines(sites, 5, camp, gap=0.3), 3)
    assert found is not None
    assert members_in(found.second) == tuple(sorted(camp))


@pytest.mark.parametrize("seed", range(5))
def test_greedy_search_misses_little(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any camp the greedy search still comes within .02 of the best split of all."""
    table = cosines(14, seed)
    exact = best_bipartition(table, 3)
    monkeypatch.setattr("bahefl_flwr.screening.bipartition.EXHAUSTIVE_UP_TO", 0)
    greedy = best_bipartition(table, 3)
    assert exact is not None
    assert greedy is not None
    assert exact.separation - 0.02 * ONE <= greedy.separation <= exact.separation


def test_ties_go_to_the_lowest_mask() -> None:
    """Of equally good splits the one is taken whose second half has the lowest mask."""
    table = np.full((6, 6), ONE // 4, dtype=np.int64)
    found = best_bipartition(table, 3)
    assert found is not None
    assert (found.second, found.separation) == (0b1110, 0)


def test_the_diagonal_does_not_count() -> None:
    """A site's cosine with itself says nothing about camps."""
    table = cosines(8, 1)
    assert best_bipartition(table + 5 * np.eye(8, dtype=np.int64), 3) == best_bipartition(table, 3)


def test_too_few_sites_are_not_split() -> None:
    """Fewer than two smallest sides: no split."""
    assert best_bipartition(cosines(5, 1), 3) is None
