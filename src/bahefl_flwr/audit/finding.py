"""What a check found wrong: of which round, site and object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that does not hold.

    Attributes:
      message: what was found, and what was to be expected.
      round: its round, None where it belongs to none. site: member index. object: CID of the stored object.
    """

    message: str
    round: int | None = None
    site: int | None = None
    object: str = ""
