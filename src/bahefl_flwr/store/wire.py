"""What both sides of a served store must agree on: paths, limits, and the words for refusals. The protocol: docs/store.md."""

from __future__ import annotations

from enum import Enum

from bahefl_flwr.store.manifest import MAX_MANIFEST_BYTES, MAX_PART_BYTES

OBJECTS = "/v1/objects/"
MISSING = "/v1/missing"
HEALTH = "/v1/health"
GREETING = b"bahefl store, protocol 1\n"
WORD_HEADER = "bahefl-refusal"

MAX_BODY_BYTES = max(MAX_PART_BYTES, MAX_MANIFEST_BYTES)
MAX_ASKED = 64
"""Most names in one question: bounds what the server hashes for it to 64 MiB."""
MAX_ANSWER_BYTES = MAX_ASKED * 60
"""A name and its line end have 60 bytes."""


class Word(Enum):
    """What a refusal is called, and its HTTP status."""

    UNSIGNED = "unsigned", 401
    NOT_A_MEMBER = "not-a-member", 403
    MISSING = "missing", 404
    CORRUPT = "corrupt", 404
    NO_SUCH_PATH = "no-such-path", 404
    WRONG_METHOD = "wrong-method", 405
    TOO_SLOW = "too-slow", 408
    INCOMPLETE = "incomplete", 409
    TOO_LARGE = "too-large", 413
    NO_SUCH_RANGE = "no-such-range", 416
    MALFORMED = "malformed", 422
    BUSY = "busy", 503
    NO_ROSTER = "no-roster", 503
    FULL = "full", 507
    DISK = "disk", 507

    def __init__(self, word: str, status: int) -> None:
        self.word, self.status = word, status


class Refusal(Exception):
    """Ends a request. Its text goes back to whoever sent it, so it holds nothing that they may not know."""

    def __init__(self, word: Word, message: str) -> None:
        super().__init__(message)
        self.word = word
