"""How commands print what they found."""

from enum import StrEnum


class Format(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"
