"""The store behind `bahefl store serve`, seen by a site: the same promises as a folder, over HTTP.

What the server says is believed in one respect only: that it has stored what it says it stored. All bytes read are verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError, StoreUnavailable
from bahefl_flwr.store.channel import Answer, Channel
from bahefl_flwr.store.manifest import Manifest, PartRef, part_ref
from bahefl_flwr.store.reading import VerifiedReads
from bahefl_flwr.store.wire import MAX_ANSWER_BYTES, MAX_ASKED, MISSING, OBJECTS, Word


class HttpStore(VerifiedReads):
    """A served store.

    Promises: `put` returns once the server has said that every part and the manifest are on its disk; a put that breaks off goes
    on at the part where it broke; every read is bounded, and verified against its digest.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return f"HttpStore({self._channel.url!r})"

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> bytes:
        """Store an object; calling it again is harmless, and sends what is lost, damaged or not there yet, and nothing else.

        Returns:
          The manifest's digest, 32 bytes.

        Raises:
          StoreError: the parts are not the manifest's. StoreUnavailable: the store does not answer, or does not take them.
        """
        name = f"{manifest.cid} ({manifest.label})"
        for i, (ref, data) in enumerate(self._sorted_out(manifest, parts)):
            if ref is None or data is None or part_ref(data) != ref[0]:
                raise StoreError(f"part {i} handed to put is not the one that manifest {name} names")
            if ref[1]:
                self._write(ref[0].cid, data, name)
        # Last, so that no object can be read in half. The server refuses it while a part is lacking.
        self._write(manifest.cid, manifest.encode(), name)
        return manifest.digest

    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        """The bytes that the server has under a CID, not verified; at most `limit` + 1."""
        answer = self._channel.ask("GET", OBJECTS + cid, limit=limit)
        if answer.word == Word.MISSING.word:
            raise ObjectMissing(f"{cid}{label} is not in the store at {self._channel.url}; its author must put it (again)")
        if answer.word == Word.CORRUPT.word:
            raise ObjectCorrupt(f"{cid}{label} was altered on the disk of {self._channel.url}; its author must put it again")
        self._expect(answer, cid + label)
        return answer.body

    def lost(self, manifest: Manifest) -> bool:
        """Whether the server lacks a part or has it damaged: it hashes all of them."""
        return any(lacking for _, lacking in self._lacking(manifest.parts))

    def _sorted_out(
        self, manifest: Manifest, parts: Iterable[bytes]
    ) -> Iterator[tuple[tuple[PartRef, bool] | None, bytes | None]]:
        return zip_longest(self._lacking(manifest.parts), parts)

    def _lacking(self, refs: Iterable[PartRef]) -> Iterator[tuple[PartRef, bool]]:
        """Every part in order, and whether it is to be sent: asked for many parts at once, so that far stores are not slow."""
        rest = iter(refs)
        while batch := list(islice(rest, MAX_ASKED)):
            question = "".join(f"{ref.cid}\n" for ref in batch).encode("ascii")
            answer = self._channel.ask("POST", MISSING, body=question, limit=MAX_ANSWER_BYTES)
            self._expect(answer, "a question")
            lacking = set(answer.body.decode("ascii", "replace").splitlines())
            yield from ((ref, ref.cid in lacking) for ref in batch)

    def _write(self, cid: str, data: bytes, name: str) -> None:
        answer = self._channel.ask("PUT", OBJECTS + cid, body=data, limit=0)
        self._expect(answer, f"{cid} of {name}")

    def _expect(self, answer: Answer, what: str) -> None:
        if answer.status >= 300:
            said = answer.body.decode("utf-8", "replace")
            raise StoreUnavailable(f"the store at {self._channel.url} did not serve {what} ({answer.word}): {said}; ask again")
