"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from bahefl_flwr.errors import BaheflError


class Level(StrEnum):
    """How bad it is: with a failure no run can be expected to work, or to be safe."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      check: what. got: what was found. advice: what to do; empty where nothing is to be done.
    """

    check: str
    level: Level
    got: str
    advice: str = ""


def ok(check: str, got: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, level=Level.OK, got=got)


def warning(check: str, got: str, advice: str) -> Finding:
    """A run may work, but somebody should know."""
    return Finding(check=check, level=Level.WARNING, got=got, advice=advice)


def failure(check: str, got: str, advice: str) -> Finding:
    """No run will work, or none is safe."""
    return Finding(check=check, level=Level.FAILURE, got=got, advice=advice)


def attempted(check: str, look: Callable[[], Iterable[Finding]], advice: str = "") -> tuple[Finding, ...]:
    """The findings of a look that may raise; an error of ours becomes a failure with its own words."""
    try:
        return tuple(look())
    except BaheflError as error:
        return (failure(check, str(error), advice),)
