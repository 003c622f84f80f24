"""How a round's aggregate object is laid out: ciphertext parts of one sum, or in a conflict of two, then the screening record."""

from __future__ import annotations

from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.records import RoundRecord
from bahefl_flwr.site.state import Site
from bahefl_flwr.site.updates import part_blocks


def aggregate_name(included: int, split: int) -> str:
    """Folder name of a kept aggregate: it says of which updates (masks) it holds the sum, or the two sums."""
    return f"aggregate-{included:x}-{split:x}"


def ciphertext_parts(site: Site, r: RoundRecord, params: SecurityParams) -> int:
    """Parts that are ciphertexts; the one after them, if there is one, is the record."""
    return len(part_blocks(site, params)) * (2 if r.split else 1)
