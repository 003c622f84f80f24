"""Canonical JSON of whole numbers: one spelling per value, and a reader that refuses every other. Knows no field's meaning."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, Never

from bahefl_flwr.untrusted_json import read_json


class NotCanonical(ValueError):
    """The bytes are not the one spelling of anything."""


def encode(tree: Mapping[str, Any]) -> bytes:
    """ASCII, keys sorted, no spaces."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def decode(data: bytes) -> Any:
    """The tree of untrusted bytes, which hold no float and no key twice.

    Raises:
      NotCanonical: they do, or are no ASCII JSON, or are nested beyond measure.
    """
    try:
        return read_json(data, object_pairs_hook=_unique, parse_float=_refuse_number, parse_constant=_refuse_number)
    except ValueError as error:
        raise NotCanonical(str(error)) from error


def whole(value: Any, low: int, high: int) -> int:
    """A whole number in low..high; true and false are none."""
    if type(value) is not int or not low <= value <= high:
        raise NotCanonical(f"{_shown(value)} is no whole number in {low}..{high}")
    return value


def optional_whole(value: Any, low: int, high: int) -> int | None:
    """As `whole`, or null."""
    return None if value is None else whole(value, low, high)


def listed(value: Any, most: int) -> list[Any]:
    """A list of at most `most` entries."""
    if not isinstance(value, list) or len(value) > most:
        raise NotCanonical(f"{_shown(value)} is no list of at most {most}")
    return value


def ascending(value: Any, most: int) -> tuple[int, ...]:
    """A list of different numbers in 0..most-1, ascending."""
    numbers = tuple(whole(item, 0, most - 1) for item in listed(value, most))
    if any(a >= b for a, b in pairwise(numbers)):
        raise NotCanonical(f"{_shown(value)} is not ascending")
    return numbers


def fields(value: Any, names: Collection[str]) -> dict[str, Any]:
    """An object with exactly these keys."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise NotCanonical(f"{_shown(value)} has other keys than {sorted(names)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise NotCanonical("a key stands twice in one object")
    return tree


def _refuse_number(text: str) -> Never:
    raise NotCanonical(f"{text[:40]} is no whole number")


def _shown(value: Any) -> str:
    return repr(value)[:60]
