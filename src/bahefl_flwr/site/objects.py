"""A site's own copies of what it puts into the store, kept until the round after next.

Kept first, put later: so the digest can be on the ledger before the bytes are readable, and lost objects can be put again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.records import LedgerView, ObjectKind, RoundRecord
from bahefl_flwr.sealing import is_usable
from bahefl_flwr.site.state import Site
from bahefl_flwr.store.manifest import Manifest, manifest_for, part_ref

_MANIFEST = "manifest.cbor"


def keep(
    site: Site, parts: Iterable[bytes], *, run: bytes, round: int, epoch: int, kind: ObjectKind, owner: str, name: str
) -> Manifest:
    """Write `parts` under the site's round folder, then their manifest; only then does the object count as kept.

    Args:
      owner: address the manifest names; for an aggregate that of the contract, since any coordinator makes the same bytes.
      name: folder name of the object, unique within the round.
    """
    folder = site.round_folder(round) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    manifest = manifest_for(_written(parts, folder), run=run, round=round, site=owner, epoch=epoch, kind=kind)
    atomic_write(folder / _MANIFEST, manifest.encode())
    return manifest


def _written(parts: Iterable[bytes], folder: Path) -> Iterator[bytes]:
    for i, part in enumerate(parts):
        atomic_write(folder / f"{i:06d}.part", part)
        yield part


def kept(site: Site, round: int, name: str) -> Manifest | None:
    """The manifest of a kept object, or None."""
    path = site.round_folder(round) / name / _MANIFEST
    return Manifest.decode(path.read_bytes()) if path.exists() else None


def kept_parts(site: Site, round: int, name: str) -> Iterator[bytes]:
    """The parts of a kept object, in order, each compared with the object's manifest.

    Raises:
      ObjectCorrupt: a part on this site's own disk is missing or was altered.
    """
    manifest = kept(site, round, name)
    for i, ref in enumerate(manifest.parts if manifest else ()):
        path = site.round_folder(round) / name / f"{i:06d}.part"
        data = path.read_bytes() if path.exists() else b""
        if part_ref(data) != ref:
            raise ObjectCorrupt(
                f"{path} is not what this site kept for round {round}; delete its folder and the site makes it again"
            )
        yield data


def put_kept(site: Site, round: int, name: str) -> int:
    """Put a kept object into the store; heals it if it was altered. Returns the bytes sent: 0 if the store had them all."""
    manifest = kept(site, round, name)
    if manifest is None:
        return 0
    known = site.store.has(manifest.digest)
    site.store.put(manifest, kept_parts(site, round, name))
    return 0 if known else manifest.size_bytes


def kept_names(site: Site, round: int) -> tuple[str, ...]:
    """Names of all kept objects of a round."""
    return tuple(sorted(p.parent.name for p in site.round_folder(round).glob(f"*/{_MANIFEST}")))


def forget_before(site: Site, round: int) -> None:
    """Delete this site's copies of all rounds before `round`."""
    for folder in (site.folder / "rounds").glob("[0-9]*"):
        if 0 < int(folder.name) < round:  # folder 0 holds the key ceremonies
            shutil.rmtree(folder)


def share_recipients(site: Site, view: LedgerView, r: RoundRecord) -> dict[str, bytes]:
    """Whom this site's part in an opening is sealed to: X25519 keys by address.

    Suspended sites, too, if they are to confirm: they may be back by then. No unusable key may keep the others from opening.
    """
    concerned = view.active | r.committed | view.epoch.committee
    sites = [m for m in site.ledger.members() if concerned >> m.index & 1]
    return {m.address: m.sealing_key for m in sites if is_usable(m.sealing_key)}
