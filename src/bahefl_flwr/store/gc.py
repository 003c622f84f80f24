"""What of a store nobody refers to any more. Decides, and deletes what was decided; reads no ledger.

Kept in any case: what the ledgers name, what belongs to a run that goes on, and whatever is younger than the grace period.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing
from bahefl_flwr.store.dag_cbor import DAG_CBOR, Link
from bahefl_flwr.store.manifest import Manifest, part_cid
from bahefl_flwr.store.reading import StoredFile


class Sweepable(Protocol):
    """A store that knows what it holds."""

    def files(self) -> Iterator[StoredFile]:
        """Every part and manifest."""
        ...

    def manifest(self, digest: bytes) -> Manifest:
        """One manifest, verified."""
        ...

    def remove(self, link: Link) -> None:
        """Delete one part or manifest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What the ledgers need.

    Attributes:
      digests: every digest they name, of manifests and of anything else. runs: run digests of the tasks that go on.
    """

    digests: frozenset[bytes]
    runs: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to go and what stays.

    Attributes:
      remove: in the order of deletion, manifests first. kept: the others. young: those of them kept for their age alone.
      damaged: CIDs of manifests that cannot be read: while there are any, no part is deleted, for it may be one of theirs.
    """

    remove: tuple[StoredFile, ...]
    kept: tuple[StoredFile, ...]
    young: int
    damaged: tuple[str, ...]


def plan(store: Sweepable, files: Iterable[StoredFile], needed: Needed, *, older_than: float) -> Plan:
    """Decide what nobody refers to.

    Args:
      files: listed before the ledgers were read. Then no object whose digest is named first and stored afterwards can be listed
        and yet seem to be nobody's. older_than: Unix time; what was put later stays.
    """
    found = list(files)
    named: set[str] = set()
    loose: list[StoredFile] = []
    damaged: list[str] = []
    for file in (f for f in found if f.link.codec == DAG_CBOR):
        try:
            manifest = store.manifest(file.link.digest)
        except ObjectMissing:
            continue
        except ObjectCorrupt:
            damaged.append(str(file.link))
            continue
        if file.link.digest in needed.digests or manifest.run in needed.runs or file.changed_at >= older_than:
            named.update(part_cid(part.digest) for part in manifest.parts)
        else:
            loose.append(file)
    if not damaged:
        loose += [f for f in found if f.link.codec != DAG_CBOR and str(f.link) not in named]
    remove = tuple(f for f in loose if f.changed_at < older_than)
    gone = {f.link for f in remove}
    return Plan(
        remove=remove, kept=tuple(f for f in found if f.link not in gone), young=len(loose) - len(remove),
        damaged=tuple(damaged),
    )  # fmt: skip


def carry_out(store: Sweepable, decided: Plan) -> None:
    """Delete what was decided, manifests first: an object that is going is not read in half."""
    for file in decided.remove:
        store.remove(file.link)
