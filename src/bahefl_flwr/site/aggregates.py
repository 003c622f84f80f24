"""How a round's aggregate object is laid out: ciphertext parts of one sum, or in a conflict of two, then the screening record."""

from __future__ import annotations

from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.records import RoundRecord
from bahefl_flwr.site.objects import kept, kept_names
from bahefl_flwr.site.state import Site
from bahefl_flwr.site.updates import part_blocks


def aggregate_name(included: int, split: int) -> str:
    """Folder name of a kept aggregate: it says of which updates (masks) it holds the sum, or the two sums."""
    return f"aggregate-{included:x}-{split:x}"


def kept_aggregates(site: Site, number: int) -> list[tuple[int, int, bytes]]:
    """What this site has added up itself in a round: mask of the updates, mask of the second half, digest of the manifest."""
    found = []
    for name in kept_names(site, number):
        kind, _, masks = name.partition("-")
        manifest = kept(site, number, name)
        if kind == "aggregate" and manifest is not None:
            included, split = (int(mask, 16) for mask in masks.split("-"))
            found.append((included, split, manifest.digest))
    return found


def ciphertext_parts(site: Site, r: RoundRecord, params: SecurityParams) -> int:
    """Parts that are ciphertexts; the one after them, if there is one, is the record."""
    return len(part_blocks(site, params)) * (2 if r.split else 1)
