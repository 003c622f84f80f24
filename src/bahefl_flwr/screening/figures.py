"""What the opened sketches say: norms, cosines between sites, and alignments with public vectors. Exact integers; no judgement.

Sketches are linear, so these are estimates of the updates' own figures: cosines within .02, norms within 2 % (docs/screening.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.screening.fixed_point import FRACTION_BITS, ONE, mean

# Products of two such numbers, summed over 4096 places, stay below 2^62: int64 sums are exact. A field holds 2^18 at most.
_LARGEST_BITS: Final = 25
_MOST_NUMBERS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """One site's opened sketch.

    Attributes:
      values: shape (groups, fields), int64: of the update as it was encrypted, that is times weight / weight_total.
      weight: the site's public weight, 1..weight_total.
      in_range: whether every opened number lies in its range; the values of one out of range mean nothing.
    """

    values: NDArray[np.int64]
    weight: int
    in_range: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of all screened sites; every tuple has one entry per member, in the same order.

    Attributes:
      members: member indices, ascending.
      in_range: whether the sketch was; all other figures of one out of range are 0.
      norms: length of the unweighted update in steps of the encoding, in units of 2^-20.
      cosines: rows of the symmetric matrix of cosines, in units of 2^-20; 0 beside a norm of 0, 1 on the diagonal.
      alignments: cosines with each public vector, by its name, in units of 2^-20; empty without history.
    """

    members: tuple[int, ...]
    in_range: tuple[bool, ...]
    norms: tuple[int, ...]
    cosines: tuple[tuple[int, ...], ...]
    alignments: Mapping[str, tuple[int, ...]]

    def scores(self) -> tuple[int, ...]:
        """Mean alignment of each member, rounded down; empty without history."""
        return tuple(mean(column) for column in zip(*self.alignments.values(), strict=True))


def figures(sketches: Mapping[int, Sketch], weight_total: int, references: Mapping[str, NDArray[np.int64]]) -> Figures:
    """Figures of the sketches, the same for every order of sites and on every machine.

    Args:
      sketches: by member index.
      weight_total: unit of all weights, as in the round's record.
      references: sketches of public vectors with this round's hash, shape (groups, fields), int64, any scale; zero ones are
        left out.

    Raises:
      ProtocolError: a weight outside 1..weight_total, or sketches of several shapes.
    """
    members = tuple(sorted(sketches))
    _check(sketches, weight_total, references)
    usable = [sketches[m].in_range and _fits(sketches[m].values) for m in members]
    rows = _rows([sketches[m].values if ok else np.zeros_like(sketches[m].values) for m, ok in zip(members, usable, strict=True)])
    # numpy adds integers itself, without BLAS: exact.
    gram = rows @ rows.T  # (sites, sites)
    squares = [int(square) for square in np.diagonal(gram)]
    return Figures(
        members=members,
        in_range=tuple(usable),
        norms=tuple(_norm(square, sketches[m].weight, weight_total) for m, square in zip(members, squares, strict=True)),
        cosines=_cosines(gram, squares),
        alignments={name: _alignments(rows, squares, values) for name, values in sorted(references.items()) if values.any()},
    )


def _check(sketches: Mapping[int, Sketch], weight_total: int, references: Mapping[str, NDArray[np.int64]]) -> None:
    for member, sketch in sketches.items():
        if not 1 <= sketch.weight <= weight_total:
            raise ProtocolError(f"site {member} has weight {sketch.weight} of {weight_total}: take both from the round's record")
    arrays: list[NDArray[np.int64]] = [*(sketch.values for sketch in sketches.values()), *references.values()]
    kinds = {(array.shape, array.dtype.str) for array in arrays}
    if len(kinds) > 1 or any(array.dtype != np.int64 or not 0 < array.size <= _MOST_NUMBERS for array in arrays):
        raise ProtocolError(f"sketches of one round are int64 of one shape, got {sorted(kinds)}: make all with the same plan")


def _fits(values: NDArray[np.int64]) -> bool:
    return max(int(values.max()), -int(values.min())) <= 1 << _LARGEST_BITS


def _rows(sketches: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    if not sketches:
        return np.zeros((0, 1), dtype=np.int64)
    return np.stack([values.reshape(-1) for values in sketches])  # (sites, groups * fields)


def _norm(square: int, weight: int, weight_total: int) -> int:
    return isqrt((square * weight_total**2 << 2 * FRACTION_BITS) // weight**2)


def _cosine(dot: int, square: int, other: int) -> int:
    """dot / sqrt(square * other) in units of 2^-20, towards zero: the same for updates scaled by any integer."""
    if not (square and other):
        return 0
    size = isqrt((dot * dot << 2 * FRACTION_BITS) // (square * other))
    return -size if dot < 0 else size


def _cosines(gram: NDArray[np.int64], squares: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    table = [[ONE] * len(squares) for _ in squares]
    for i, square in enumerate(squares):
        for j in range(i):
            table[i][j] = table[j][i] = _cosine(int(gram[i, j]), square, squares[j])
    return tuple(map(tuple, table))


def _alignments(rows: NDArray[np.int64], squares: Iterable[int], reference: NDArray[np.int64]) -> tuple[int, ...]:
    vector = _scaled_down(reference.reshape(-1))
    length = int(vector @ vector)
    return tuple(_cosine(int(dot), square, length) for dot, square in zip(rows @ vector, squares, strict=True))


def _scaled_down(vector: NDArray[np.int64]) -> NDArray[np.int64]:
    """A public vector may be of any size; its direction is all that counts."""
    largest = max(int(vector.max()), -int(vector.min()))
    return vector >> max(0, largest.bit_length() - _LARGEST_BITS)
