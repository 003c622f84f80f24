"""Figures from sketches: exact integers, whatever the platform's floats do."""

from __future__ import annotations

import numpy as np
import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.screening.figures import Sketch, figures
from bahefl_flwr.screening.fixed_point import ONE, fixed, lower_median, median, running_mean


def sketch(*values: int, weight: int = 1, in_range: bool = True) -> Sketch:
    return Sketch(values=np.array([values], dtype=np.int64), weight=weight, in_range=in_range)


def test_norm_and_cosine_of_known_vectors() -> None:
    """A 3-4-5 triangle comes out as 5 and 0.6."""
    seen = figures({7: sketch(3, 4), 2: sketch(5, 0)}, 1, {"drift": np.array([[0, 2]], dtype=np.int64)})
    assert seen.members == (2, 7)
    assert seen.norms == (5 * ONE, 5 * ONE)
    assert seen.cosines == ((ONE, 3 * ONE // 5), (3 * ONE // 5, ONE))
    assert seen.alignments == {"drift": (0, 4 * ONE // 5)}


def test_norm_undoes_the_weight() -> None:
    """A site with a quarter of the weight encrypted a quarter of its update."""
    assert figures({0: sketch(3, 4, weight=25)}, 100, {}).norms == (20 * ONE,)


def test_opposite_vectors_have_cosine_minus_one() -> None:
    """The sign survives, exactly."""
    assert figures({0: sketch(3, 4), 1: sketch(-6, -8)}, 1, {}).cosines[0][1] == -ONE


def test_zero_vector_has_no_direction() -> None:
    """Beside a zero update every cosine is 0, and nothing divides by it."""
    seen = figures({0: sketch(0, 0), 1: sketch(1, 2)}, 1, {"recent": np.array([[1, 1]], dtype=np.int64)})
    assert (seen.norms[0], seen.cosines[0][1], seen.alignments["recent"][0]) == (0, 0, 0)


def test_largest_numbers_are_summed_exactly() -> None:
    """4096 products of the largest admitted numbers do not overflow."""
    values = np.full((1024, 4), 1 << 25, dtype=np.int64)
    seen = figures({0: Sketch(values=values, weight=1, in_range=True)}, 1, {"recent": values << 30})
    assert seen.in_range == (True,)
    assert seen.norms == (ONE << 31,)
    assert seen.alignments["recent"] == (ONE,)


@pytest.mark.parametrize("weight", [0, 101])
def test_weight_outside_the_total_is_refused(weight: int) -> None:
    """A weight that the round's record cannot hold is an error of the caller."""
    with pytest.raises(ProtocolError, match="site 0 has weight"):
        figures({0: sketch(1, weight=weight)}, 100, {})


def test_sketches_of_two_plans_are_refused() -> None:
    """Sketches of different shapes have no cosine."""
    with pytest.raises(ProtocolError, match="one shape"):
        figures({0: sketch(1), 1: sketch(1, 2)}, 1, {})


def test_float_sketches_are_refused() -> None:
    """Only whole numbers make every machine agree."""
    with pytest.raises(ProtocolError, match="int64"):
        figures({0: Sketch(values=np.ones((1, 1)), weight=1, in_range=True)}, 1, {})  # type: ignore[arg-type]


def test_medians_take_the_lower_or_the_mean_of_two() -> None:
    """Of an even number of values: the lower middle one, and the mean of the middle ones rounded down."""
    assert (lower_median([4, 1, 3, 2]), median([4, 1, 3, 2]), median([5, 1, 3])) == (2, 2, 3)


def test_running_mean_starts_with_its_first_value() -> None:
    """Nothing is blended before there is anything."""
    assert (running_mean(None, 7, tenths=3), running_mean(10, 20, tenths=3)) == (7, 13)


def test_fixed_point_of_a_threshold() -> None:
    """A threshold is rounded to the nearest step."""
    assert (fixed(0.5), fixed(1.0), fixed(2**-21 + 2**-40)) == (ONE // 2, ONE, 1)
