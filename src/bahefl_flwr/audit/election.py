"""Who had to coordinate and to hold keys, recomputed from the events alone: onion layers, entropy, tickets, draws, scores.

A second implementation of contracts/Succession.sol, and of the draws of KeyEpochs.sol. It reads what members did, never what
the contract concluded; the conclusions are compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from eth_utils.crypto import keccak

from bahefl_flwr.audit.attempt import needed_votes
from bahefl_flwr.audit.committees import Committees
from bahefl_flwr.audit.conduct import Course, Stage, Standing, settle
from bahefl_flwr.audit.evidence import Evidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.lottery import (
    draw,
    first_ranked,
    inserted,
    lowest_ticket,
    packed,
    screen_seed,
    tickets,
    word,
)
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import RoundOutcome, members_in

_FAULT, _RESIGNED = 2, 8
# Rounds without tickets after an onion was replaced (Membership.sol).
_ROTATION_REST = 64
_ZERO = bytes(32)
# With these the contract gives up after a coordinator failed; every other reason is somebody's own.
_NOBODY_LEFT = "no site is left that could coordinate"
_AFTER_A_FAULT = (
    _NOBODY_LEFT,
    "no coordinator produced a verified aggregate",
    "aggregate failed after shares of it were released",
)


class Recount:
    """Follows the events of one ledger and tells every difference between what it elected and what it had to elect."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._members: dict[int, Standing] = {}
        self._rounds: dict[int, Course] = {0: Course(number=0, coordinator=0, selected=0, phase=Stage.OVER)}
        self._active = 0
        self._cooldown = 0
        self._key = _ZERO
        self._committees = Committees(evidence)
        self._transaction: tuple[str, set[str]] = ("", set())
        self._suspended = -1

    def findings(self) -> Iterator[Finding]:
        """All differences, in order; the last ones compare the end of each round and of the roster."""
        steps: dict[str, Callable[[Event], Iterable[Finding] | None]] = {
            "ConfigChanged": self._config, "Registered": self._registered, "OnionRotated": self._rotated,
            "Suspended": self._suspend, "Reinstated": self._reinstated, "EpochActive": self._key_made,
            "RoundOpened": self._opened, "SitesSelected": self._select, "UpdateCommitted": self._committed,
            "Declined": self._declined, "CommitsClosed": self._closed, "AggregateSubmitted": self._submitted,
            "LayerRevealed": self._revealed, "SeedDrawn": self._seed_drawn, "SketchReleased": self._sketched,
            "OpeningConfirmed": self._confirmed, "RoundSpoiled": self._spoiled,
            "Attested": self._attested, "AggregateVerified": self._verified, "AggregateRejected": self._rejected,
            "WrongVotes": self._wrong_votes, "Resigned": self._resigned, "CoordinatorReplaced": self._replaced,
            "RoundFinalized": self._finalized, "RoundAborted": self._aborted, "EpochOpened": self._committee,
        }  # fmt: skip
        for event in self._evidence.events:
            if self._transaction[0] != event.sent.hash:
                self._transaction = (event.sent.hash, set())
                self._suspended = -1
            self._committees.follow(event)
            if event.name in steps:
                yield from steps[event.name](event) or ()
            self._transaction[1].add(event.name)
        yield from self._compare_rounds()
        yield from self._compare_members()

    # ---- membership

    def _config(self, event: Event) -> None:
        self._cooldown = self._evidence.rules_at(event).cooldown

    def _registered(self, event: Event) -> None:
        index = event.values["index"]
        self._members[index] = Standing(index=index, anchor=event.values["onionAnchor"], salt_round=self._now + 1)
        self._active |= 1 << index

    def _rotated(self, event: Event) -> None:
        member = self._member(event)
        member.anchor, member.salt_round = event.values["onionAnchor"], self._now + 1 + _ROTATION_REST

    def _suspend(self, event: Event) -> None:
        member, r = self._member(event), self._rounds[self._now]
        self._active &= ~(1 << member.index)
        if r.phase in (Stage.VERIFIED, Stage.OVER):
            return
        if r.coordinator == member.index and not r.failed >> member.index & 1:
            if r.phase != Stage.COMMIT and not r.unscreened:
                self._fault(r)
            r.failed |= 1 << member.index
            self._suspended = member.index
        if r.phase == Stage.COMMIT and not (r.committed | r.declined) >> member.index & 1:
            r.selected &= ~(1 << member.index)

    def _reinstated(self, event: Event) -> None:
        self._active |= 1 << self._member(event).index

    # ---- a round

    def _key_made(self, event: Event) -> None:
        self._key = event.values["keyDigest"]

    def _committee(self, event: Event) -> Iterator[Finding]:
        last = self._rounds[self._now]
        seed = last.beacon + last.entropy.to_bytes(32, "big") + event.parent
        return self._committees.compare(event, self._active, seed, self._draw)

    def _opened(self, event: Event) -> Iterator[Finding]:
        number, last = event.values["round"], self._rounds[self._now]
        seed = last.beacon + last.entropy.to_bytes(32, "big") + self._key + word(number)
        coordinator = self._evidence.index_of(event.values["coordinator"])
        r = Course(
            number=number, coordinator=-1 if coordinator is None else coordinator, selected=self._active,
            screened=self._evidence.task_of(self._evidence.rounds[number - 1].task).screened, beacon=keccak(seed),
        )  # fmt: skip
        self._rounds[number] = r
        pool = _prefer(self._active, ~last.failed)
        expected = first_ranked(last.ranking, pool)
        if expected is None and pool:
            expected = self._draw(self._rested(_prefer(pool, last.revealed)), r.beacon)
        yield from self._compare_choice(r, expected, "opened with")
        if event.values["selected"] != self._active:
            given = members_in(event.values["selected"])
            yield Finding(round=number, message=f"opened for sites {given}, active were {members_in(self._active)}")

    def _select(self, event: Event) -> None:
        self._rounds[self._now].selected = event.values["selected"]

    def _committed(self, event: Event) -> None:
        r, m = self._rounds[self._now], self._member(event)
        r.committed |= 1 << m.index
        r.digests[m.index] = event.values["digest"]

    def _declined(self, event: Event) -> None:
        self._rounds[self._now].declined |= 1 << self._member(event).index

    def _closed(self, event: Event) -> None:
        self._rounds[self._now].phase = Stage.LATER

    def _submitted(self, event: Event) -> None:
        r = self._rounds[self._now]
        r.included, r.split, r.voted = event.values["included"], event.values["split"], 0

    def _verified(self, event: Event) -> None:
        self._rounds[self._now].phase = Stage.VERIFIED

    def _attested(self, event: Event) -> Iterator[Finding]:
        r, m = self._rounds[self._now], self._member(event)
        r.voted |= 1 << m.index
        if not r.revealed >> m.index & 1:
            yield from self._revealed(event)

    def _revealed(self, event: Event) -> Iterator[Finding]:
        r, m, layer = self._rounds[self._now], self._member(event), event.values["layer"]
        if keccak(layer) != m.anchor:
            yield Finding(round=r.number, site=m.index, message="revealed a layer that is not the next one of its hash onion")
        m.anchor = layer
        r.revealed |= 1 << m.index
        r.entropy ^= int.from_bytes(layer, "big")
        self._enter(r, m, layer)

    def _enter(self, r: Course, m: Standing, layer: bytes) -> None:
        """Let the owner of a layer compete for the next round, unless it rests or its salt is not fixed yet."""
        if self._cooldown and (m.index == r.coordinator or self._cooling(m, r.number + 1)):
            return
        if m.salt_round >= r.number:
            return
        salt = self._rounds[m.salt_round].entropy
        if not salt:
            m.salt_round = r.number
            return
        ticket = lowest_ticket(layer, salt.to_bytes(32, "big"), r.number, tickets(m.score))
        r.ranking = inserted(r.ranking, ticket, m.index)

    # ---- screening

    def _seed_drawn(self, event: Event) -> Iterator[Finding]:
        r = self._rounds[self._now]
        digests = [r.digests[i] for i in sorted(r.digests)]
        seed = screen_seed(r.number, r.entropy.to_bytes(32, "big"), digests)
        needed = needed_votes(r.committed, self._evidence.rules_at(event).quorum_bps)
        if r.seed != _ZERO:
            yield Finding(round=r.number, message="a second seed was drawn for the screening")
        if r.phase != Stage.LATER or (r.committed & self._active & ~r.revealed and r.revealed.bit_count() < needed):
            yield Finding(round=r.number, message=f"the seed was drawn when sites {members_in(r.revealed)} had revealed")
        if event.values["seed"] != seed:
            message = f"the seed of the screening is {event.values['seed'].hex()}; the reveals give {seed.hex()}"
            yield Finding(round=r.number, message=message)
        r.seed = seed

    def _sketched(self, event: Event) -> None:
        self._rounds[self._now].sketches[event.values["quorum"]] |= 1 << self._member(event).index

    def _confirmed(self, event: Event) -> None:
        self._rounds[self._now].outcome = RoundOutcome(event.values["outcome"])

    def _spoiled(self, event: Event) -> None:
        r = self._rounds[self._now]
        r.phase, r.included, r.split = Stage.LATER, 0, 0
        r.sketches.clear()

    # ---- fail-over

    def _resigned(self, event: Event) -> None:
        r = self._rounds[self._now]
        if r.coordinator in self._members:
            self._members[r.coordinator].lose(_RESIGNED)
        r.failed |= 1 << r.coordinator

    def _rejected(self, event: Event) -> None:
        self._fault(self._rounds[self._now])

    def _wrong_votes(self, event: Event) -> None:
        for index in members_in(event.values["members"]):
            self._members[index].lose(_FAULT)

    def _replaced(self, event: Event) -> Iterator[Finding]:
        r, seen = self._rounds[self._now], self._transaction[1]
        if "SitesSelected" in seen:
            pool = r.selected
        elif r.phase == Stage.COMMIT and ("Resigned" in seen or self._suspended == r.coordinator):
            pool = r.selected & ~r.declined
        elif r.phase == Stage.COMMIT:
            self._absent(r)
            pool = r.committed
        else:
            if not seen & {"Resigned", "AggregateRejected", "Suspended"} and not r.unscreened:
                self._fault(r)
            r.failed |= 1 << r.coordinator
            r.included, pool = 0, r.committed
        yield from self._succeed(event, r, pool & self._active & ~r.failed)

    def _succeed(self, event: Event, r: Course, pool: int) -> Iterator[Finding]:
        expected = first_ranked(self._rounds[r.number - 1].ranking, pool)
        if expected is None and pool:
            expected = self._draw(self._rested(pool), keccak(r.beacon + word(r.failed)))
        named = self._evidence.index_of(event.values["next"])
        r.coordinator = -1 if named is None else named
        yield from self._compare_choice(r, expected, "passed on to")

    def _absent(self, r: Course) -> None:
        """Commits closed without the coordinator's: its fault, unless it declined, resigned or was suspended."""
        if not (r.declined | r.failed) >> r.coordinator & 1:
            self._fault(r)
        r.failed |= 1 << r.coordinator

    def _aborted(self, event: Event) -> None:
        r, seen = self._rounds[self._now], self._transaction[1]
        reason = self._evidence.rounds[r.number - 1].record.abort_reason
        if r.phase == Stage.COMMIT and reason == _NOBODY_LEFT:
            self._absent(r)
        elif r.phase == Stage.LATER and reason in _AFTER_A_FAULT:
            if not seen & {"Resigned", "AggregateRejected", "Suspended"} and not r.unscreened:
                self._fault(r)
            r.failed |= 1 << r.coordinator
        r.phase = Stage.OVER

    def _finalized(self, event: Event) -> None:
        r = self._rounds[self._now]
        r.phase = Stage.OVER
        reasons = self._evidence.rounds[r.number - 1].record.reasons
        left_out = dict(zip(members_in(r.committed & ~r.included), reasons, strict=False))
        for index in members_in(r.selected & ~r.declined):
            settle(r, self._members[index], left_out.get(index, 0))
        if r.coordinator in self._members:
            m = self._members[r.coordinator]
            m.coordinated, m.last_coordinated = m.coordinated + 1, r.number

    def _fault(self, r: Course) -> None:
        if r.coordinator in self._members:
            self._members[r.coordinator].lose(_FAULT)
            self._members[r.coordinator].faults += 1

    # ---- who is eligible

    @property
    def _now(self) -> int:
        return max(self._rounds)

    def _member(self, event: Event) -> Standing:
        index = self._evidence.index_of(event.values["member"])
        if index is None or index not in self._members:
            # Check 3 names the stranger; here it only must not spoil the rest.
            return Standing(index=255, anchor=_ZERO, salt_round=0)
        return self._members[index]

    def _cooling(self, m: Standing, round: int) -> bool:
        return m.last_coordinated != 0 and m.last_coordinated + self._cooldown >= round

    def _rested(self, pool: int) -> int:
        rested = sum(1 << i for i in members_in(pool) if not self._cooling(self._members[i], self._now))
        return _prefer(pool, rested)

    def _draw(self, pool: int, seed: bytes) -> int:
        return draw({i: m.score for i, m in self._members.items()}, pool, seed)

    # ---- conclusions

    def _compare_choice(self, r: Course, expected: int | None, how: str) -> Iterator[Finding]:
        if expected != r.coordinator:
            message = f"the round was {how} site {r.coordinator}; the reveals elect site {expected}"
            yield Finding(round=r.number, site=r.coordinator, message=message)

    def _compare_rounds(self) -> Iterator[Finding]:
        for found in self._evidence.rounds:
            r, record = self._rounds[found.record.number], found.record
            pairs: Mapping[str, tuple[object, object]] = {
                "coordinator": (record.coordinator, r.coordinator),
                "entropy": (found.entropy.hex(), r.entropy.to_bytes(32, "big").hex()),
                "beacon": (found.beacon.hex(), r.beacon.hex()),
                "best tickets": (found.ranking, packed(r.ranking)),
                "screening's seed": (record.screen_seed.hex(), r.seed.hex()),
                "revealed layers": (members_in(record.revealed), members_in(r.revealed)),
                "failed coordinators": (members_in(record.failed), members_in(r.failed)),
            }
            for what, (stated, true) in pairs.items():
                if stated != true:
                    yield Finding(round=r.number, message=f"the ledger's {what} are {stated}, the events give {true}")

    def _compare_members(self) -> Iterator[Finding]:
        for stated in self._evidence.members:
            m = self._members.get(stated.index)
            if m is None:
                yield Finding(site=stated.index, message="is on the roster without ever having registered")
                continue
            pairs: Mapping[str, tuple[object, object]] = {
                "score": (stated.score, m.score),
                "terms as coordinator": (stated.coordinated, m.coordinated),
                "faults as coordinator": (stated.coordinator_faults, m.faults),
                "onion": (stated.onion_anchor.hex(), m.anchor.hex()),
            }
            for what, (said, true) in pairs.items():
                if said != true:
                    yield Finding(site=m.index, message=f"{what} on the ledger: {said}; the events give {true}")


def _prefer(mask: int, preferred: int) -> int:
    return mask & preferred or mask
