"""Which members had to form a key committee, recomputed from the events: who was eligible, and whom the draw picks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from eth_utils.crypto import keccak

from bahefl_flwr.audit.evidence import Evidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.lottery import word
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import members_in

_SILENT = "silent until the deadline"
_CONTRADICTED = "confirmed another key than the majority"


class Committees:
    """Follows who may sit in the next committee of a task: not the excluded, nor for a while those who stayed silent."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._excluded = self._absent = 0
        self._accusers: defaultdict[tuple[int, str], set[str]] = defaultdict(set)

    def follow(self, event: Event) -> None:
        """Take an event into account."""
        if event.name == "TaskStarted":
            self._excluded = self._absent = 0
        elif event.name == "EpochActive":
            self._absent = 0
        elif event.name == "EpochFailed" and event.values["reason"] == _SILENT:
            self._absent |= event.values["culprits"]
        elif event.name == "EpochFailed" and event.values["reason"] == _CONTRADICTED:
            self._excluded |= event.values["culprits"]
        elif event.name == "Accused":
            self._accuse(event)

    def _accuse(self, event: Event) -> None:
        epoch, culprit = event.values["epoch"], event.values["culprit"]
        accusers = self._accusers[epoch, culprit]
        accusers.add(event.values["accuser"])
        index = self._evidence.index_of(culprit)
        if index is not None and 2 * len(accusers) > self._evidence.epoch_of(epoch).record.committee.bit_count():
            self._excluded |= 1 << index

    def compare(self, event: Event, active: int, seed: bytes, draw: Callable[[int, bytes], int]) -> Iterator[Finding]:
        """What is wrong with the committee of an epoch that opens.

        Args:
          active: mask of the active members. seed: beacon and entropy of the last round, and the hash of the block before.
          draw: one member of a pool, by reputation.
        """
        number, given = event.values["epoch"], event.values["committee"]
        record, most = self._evidence.epoch_of(number).record, self._evidence.rules_at(event).committee_max
        pool = active & ~self._excluded
        candidates = pool & ~self._absent
        size = min(candidates.bit_count(), most)
        if record.threshold > 1:
            size = min(size, 2 * record.threshold - 1)
        expected = candidates if candidates.bit_count() == size else 0
        for k in range(size if not expected else 0):
            expected |= 1 << draw(candidates & ~expected, keccak(keccak(seed + word(number)) + word(k)))
        if given != expected or record.committee != given:
            message = f"epoch {number}: the committee is {members_in(record.committee)}, the draw picks {members_in(expected)}"
            yield Finding(message=message)
        if record.pool != pool:
            message = f"epoch {number}: eligible on the ledger are {members_in(record.pool)}, by the events {members_in(pool)}"
            yield Finding(message=message)
