"""Fixed-point numbers of screening: integers in units of 2^-20, and their medians and means. No rule lives here.

Integers only: sums of floats depend on their order and on the processor, and then two sites would decide differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FRACTION_BITS: Final = 20
ONE: Final = 1 << FRACTION_BITS


def fixed(value: float) -> int:
    """The nearest multiple of 2^-20, in those units. Exact on every machine: a product with a power of two, then one rounding."""
    return round(value * ONE)


def lower_median(values: Iterable[int]) -> int:
    """The middle value, the lower one of two: half of the values being hostile cannot raise it above all honest ones."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def median(values: Iterable[int]) -> int:
    """The middle value, or the mean of the two middle ones, rounded down."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


def mean(values: Iterable[int]) -> int:
    """The mean, rounded down."""
    listed = list(values)
    return sum(listed) // len(listed)


def within(value: int, low: int, high: int) -> int:
    """The nearest number in low..high."""
    return min(max(value, low), high)


def running_mean(before: int | None, new: int, *, tenths: int) -> int:
    """Exponential mean: `tenths` / 10 of the new value, the rest of what was there; the new value itself at first."""
    return new if before is None else (before * (10 - tenths) + new * tenths) // 10
