"""What a served store does with one request, once it is known who asks. No HTTP, no sockets; disk work, so call it in a thread.

Whatever is refused raises `Refusal`.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError
from bahefl_flwr.store.dag_cbor import DAG_CBOR, CborError, Link
from bahefl_flwr.store.local import LocalStore
from bahefl_flwr.store.manifest import Manifest
from bahefl_flwr.store.usage import QuotaExceeded, Usage
from bahefl_flwr.store.wire import MAX_ASKED, MAX_BODY_BYTES, Refusal, Word

_log = logging.getLogger("bahefl_flwr.store")


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of objects, and who put how much of it."""

    store: LocalStore
    usage: Usage

    def read(self, link: Link) -> bytes:
        """A part or manifest, whole and verified: so the operator hears of a failing disk, and the author of a damaged object."""
        try:
            data = self.store.raw(str(link), MAX_BODY_BYTES)
        except ObjectMissing as error:
            raise Refusal(Word.MISSING, f"{link} is not here; its author must put it (again)") from error
        except StoreError as error:
            raise _corrupt(link, str(error)) from error
        if hashlib.sha256(data).digest() != link.digest:
            raise _corrupt(link, "its bytes have another digest")
        return data

    def missing(self, body: bytes) -> bytes:
        """Which of the objects named in a question (CIDs, one a line, at most `MAX_ASKED`) are not here intact; the same form."""
        return "".join(f"{link}\n" for link in _asked(body) if not self._intact(link)).encode("ascii")

    def write(self, account: str, link: Link, data: bytes, digest: bytes) -> bool:
        """Store a part or manifest, `digest` being the SHA-256 of its bytes. Returns whether anything changed.

        Checks: (1) the bytes are those that the name says, (2) a part has its size; a manifest is one, and all its parts are
        here, so that no object can be read in half, (3) the account and the store have room.
        """
        if digest != link.digest:  # 1
            raise Refusal(
                Word.MALFORMED, f"the {len(data)} bytes that came are not {link}: they changed on the way, send them again"
            )
        if link.codec == DAG_CBOR:  # 2
            self._expect_whole(link, data)
        elif not data:
            raise Refusal(Word.MALFORMED, "a part has at least one byte")
        try:
            with self.usage.putting(account, link, len(data)):  # 3
                return self.store.place(link, data)
        except QuotaExceeded as error:
            _log.warning("refused %s to %s: %s", link, account, error)
            raise Refusal(Word.FULL, str(error)) from error
        except StoreError as error:
            _log.error("%s", error)
            raise Refusal(Word.DISK, "the store's disk refuses to write: its operator must free space or mend it") from error

    def _expect_whole(self, link: Link, data: bytes) -> None:
        try:
            manifest = Manifest.decode(data)
        except ObjectCorrupt as error:
            raise Refusal(Word.MALFORMED, str(error)) from error
        if self.store.lost(manifest):
            raise Refusal(Word.INCOMPLETE, f"{link} names parts that are not here: put them first")

    def _intact(self, link: Link) -> bool:
        try:
            self.read(link)
        except Refusal:
            return False
        self.store.freshen(str(link))  # whoever asks will not send it
        return True


def parse_name(text: str) -> Link:
    """The object that a path names."""
    try:
        return Link.parse(text)
    except CborError as error:
        raise Refusal(Word.NO_SUCH_PATH, str(error)) from error


def _asked(body: bytes) -> list[Link]:
    try:
        lines = body.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise Refusal(Word.MALFORMED, "a question is CIDs, one a line") from error
    if len(lines) > MAX_ASKED:
        raise Refusal(Word.TOO_LARGE, f"{len(lines)} names in one question, at most {MAX_ASKED}")
    return [parse_name(line) for line in dict.fromkeys(lines)]


def _corrupt(link: Link, why: str) -> Refusal:
    _log.error("%s is damaged on this store's disk (%s): its author is asked to put it again", link, why)
    return Refusal(Word.CORRUPT, f"{link} was altered on the store's disk; its author must put it again")
