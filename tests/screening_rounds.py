"""Rounds of made-up updates for the tests of screening: honest ones around a common direction, and what attackers send.

Sketches are linear, so vectors of sketch size stand for updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.records import ExclusionReason
from bahefl_flwr.screening.decision import Decision, decide
from bahefl_flwr.screening.figures import Figures, Sketch, figures
from bahefl_flwr.screening.fixed_point import ONE, fixed
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules
from bahefl_flwr.settings import compose

SHAPE = (256, 3)
RULES = Rules.of(compose().screening, full_weight=8, min_sites=3)
HOLD = replace(RULES, policy="hold")
LENGTH = 6000.0

Vector = NDArray[np.float64]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def direction(seed: int) -> Vector:
    """A random direction, of unit length."""
    drawn = rng(seed).normal(size=SHAPE)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float64)


def around(centre: Vector, count: int, dispersion: float, seed: int) -> list[Vector]:
    """Directions whose cosines with each other are about 1 / (1 + dispersion^2)."""
    noise = rng(seed).normal(size=(count, *SHAPE))
    noise /= np.linalg.norm(noise.reshape(count, -1), axis=1)[:, None, None]
    drawn = centre + dispersion * noise
    return list(drawn / np.linalg.norm(drawn.reshape(count, -1), axis=1)[:, None, None])


def sketches(vectors: Iterable[Vector], *, weight: int = 100) -> dict[int, Sketch]:
    """Sketches of members 0, 1, ... with equal weights, LENGTH steps for a vector of length 1."""
    values = [np.rint(LENGTH * vector).astype(np.int64) for vector in vectors]
    return {member: Sketch(values=value, weight=weight, in_range=True) for member, value in enumerate(values)}


def references(recent: Vector, drift: Vector | None = None) -> dict[str, NDArray[np.int64]]:
    """Public vectors as the caller sketches them."""
    vectors = {"recent": recent, "drift": recent if drift is None else drift}
    return {name: np.rint(LENGTH * vector).astype(np.int64) for name, vector in vectors.items()}


def figures_of(vectors: Iterable[Vector], recent: Vector | None = None, drift: Vector | None = None) -> Figures:
    """Figures of equally weighted sites."""
    opened = sketches(vectors)
    return figures(opened, 100 * len(opened), {} if recent is None else references(recent, drift))


def usual_history(*, norm: float = 10.0, alignment: float = 0.6, spread: float | None = 0.02, rounds: int = 5) -> History:
    """As after honest rounds of ten equally weighted sites with vectors of length 1: their unweighted norm is ten times that."""
    return History(
        norm=int(norm * LENGTH * ONE),
        alignment=fixed(alignment),
        spread=None if spread is None else fixed(spread),
        reputation={},
        garbage=0,
        rounds=rounds,
    )


def decided(
    vectors: Iterable[Vector],
    *,
    recent: Vector | None = None,
    drift: Vector | None = None,
    history: History | None = None,
    unusable: Mapping[int, ExclusionReason] | None = None,
    rules: Rules = RULES,
) -> Decision:
    """The decision about equally weighted sites; without history unless one is given."""
    return decide(figures_of(vectors, recent, drift), history or History.empty(), rules, unusable or {})
