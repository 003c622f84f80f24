"""State of the model of FederationLedger, and what follows from a transaction that was accepted.

The transactions themselves are in ledger_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bahefl_flwr.ledger.contract import ContractConfig
from bahefl_flwr.records import BallotStage, EpochPhase, RoundOutcome, RoundPhase, members_in

LIVE = (RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY, RoundPhase.VERIFIED)
CEREMONY = (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM)
ADMIN = "AccessControlUnauthorizedAccount"


class Refused(Exception):
    """The contract must refuse, with the custom error of this name."""


def refuse(condition: object, name: str) -> None:
    """Refuse if the condition holds."""
    if condition:
        raise Refused(name)


def has(mask: int, i: int | None) -> bool:
    """Whether a member's bit is set; nobody's (None) never is."""
    return i is not None and bool(mask >> i & 1)


@dataclass(slots=True)
class ModelTask:
    """A task, as far as rules depend on it."""

    number: int = 0
    threshold: int = 0
    rounds: int = 0
    open: bool = False
    screened: bool = False
    end_reason: str = ""
    finalized: int = 0
    failed_ceremonies: int = 0
    excluded: int = 0
    absent: int = 0


@dataclass(slots=True)
class ModelEpoch:
    """A key epoch."""

    number: int = 0
    phase: EpochPhase = EpochPhase.NONE
    committee: int = 0
    pool: int = 0
    accused: int = 0
    renewal: bool = False
    struck_out: bool = False
    finalized_before: int = 0
    acted: list[int] = field(default_factory=lambda: [0] * 4)
    keys: dict[int, bytes] = field(default_factory=dict)
    accusers: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class ModelRound:
    """A round."""

    number: int = 0
    phase: RoundPhase = RoundPhase.NONE
    attempt: int = 0
    coordinator: int = 0
    selected: int = 0
    committed: int = 0
    declined: int = 0
    included: int = 0
    split: int = 0
    voted_ok: int = 0
    voted_bad: int = 0
    revealed: int = 0
    failed: int = 0
    open_quorum: int = 0
    disputed: int = 0
    cast: int = 0
    balloted: int = 0
    ballot_stage: BallotStage = BallotStage.NONE
    seed: bool = False
    sketched: bool = False
    spoils: int = 0
    opened: bytes = b""
    outcome: RoundOutcome = RoundOutcome.WHOLE
    spoiled: bytes = b""
    abort_reason: str = ""
    shares: list[tuple[int, int]] = field(default_factory=list)
    sketches: list[tuple[int, int]] = field(default_factory=list)
    results: dict[int, tuple[bytes, RoundOutcome]] = field(default_factory=dict)
    choices: dict[int, int] = field(default_factory=dict)
    released: bool = False

    @property
    def confirmed(self) -> int:
        """Who named a result."""
        return sum(1 << i for i in self.results)


class State:
    """The ledger's state and the consequences of transactions.

    Attributes:
      late: to be set before each transaction: whether the present deadline has passed.
      coordinators: members one of which the last transaction made coordinator; 0 if it elected none.
      seats: (pool, number) of the committee that the last transaction drew; None if it drew none.
    """

    def __init__(self, config: ContractConfig, members: int) -> None:
        self.config = config
        self.late = False
        self.active = self.registered = (1 << members) - 1
        self.task, self.epoch, self.round = ModelTask(), ModelEpoch(), ModelRound()
        self.coordinators = 0
        self.seats: tuple[int, int] | None = None

    # ---- checks that several share

    def _round_in(self, *phases: RoundPhase) -> None:
        refuse(self.round.number == 0, "NotCurrentRound")
        refuse(self.round.phase not in phases, "WrongPhase")

    def _seat(self, i: int | None) -> int:
        refuse(not has(self.active, i), "NotMember")
        refuse(not has(self.epoch.committee & ~self.task.excluded, i), "NotInCommittee")
        return i or 0

    def _answer(self, i: int | None) -> None:
        self._round_in(RoundPhase.COMMIT)
        refuse(not has(self.active, i), "NotMember")
        refuse(not has(self.round.selected, i), "NotSelected")
        refuse(has(self.round.committed, i), "AlreadyCommitted")
        refuse(has(self.round.declined, i), "AlreadyDeclined")
        refuse(self.late, "DeadlinePassed")

    def _only_coordinator(self, i: int | None) -> None:
        refuse(i != self.round.coordinator or not has(self.active, i), "NotCoordinator")

    def _in_ceremony(self) -> bool:
        return self.epoch.phase in (*CEREMONY, EpochPhase.DISPUTE)

    def _majority(self) -> int:
        return (self.round.committed.bit_count() * self.config.quorum_bps + 9999) // 10000

    def _suspected(self, quorum: int) -> bool:
        return bool(quorum & (self.round.disputed | self.task.excluded))

    def _complete(self, quorum: int) -> bool:
        return all((i, quorum) in self.round.shares for i in members_in(quorum))

    def _committed(self, i: int | None) -> None:
        refuse(not has(self.active, i), "NotMember")
        refuse(not has(self.round.committed, i), "NotCommitted")

    def _fits(self, i: int | None, quorum: int, barred: int) -> None:
        refuse(not has(self.active, i), "NotMember")
        refuse(not has(self.epoch.committee, i), "NotInCommittee")
        fits = not quorum & (~self.epoch.committee | barred) and quorum.bit_count() == self.task.threshold and has(quorum, i)
        refuse(not fits, "BadQuorum")

    def _aggregating(self) -> None:
        self._round_in(RoundPhase.AGGREGATE)
        refuse(self.late, "DeadlinePassed")

    def _balloting(self, stage: BallotStage) -> None:
        self._round_in(RoundPhase.VERIFIED)
        refuse(self.round.ballot_stage is not stage, "WrongStage")
        refuse(self.late, "DeadlinePassed")

    def _unsketched(self) -> bool:
        return self.task.screened and not self.round.sketched

    def _ballots_open(self) -> bool:
        return self.round.ballot_stage in (BallotStage.CAST, BallotStage.REVEAL)

    # ---- what follows from a transaction

    def _conclude(self) -> None:
        e = self.epoch
        groups = [sum(1 << j for j, key in e.keys.items() if key == e.keys[i]) for i in members_in(e.committee)]
        agreed = max(groups, key=int.bit_count)
        if agreed == e.committee:
            e.phase = EpochPhase.ACTIVE
            self.task.failed_ceremonies = self.task.absent = 0
            self._open_round()
        elif 2 * agreed.bit_count() > e.committee.bit_count():
            self.task.excluded |= e.committee & ~agreed
            self._restart()
        else:
            self._repeat()

    def _repeat(self) -> None:
        self.task.failed_ceremonies += 1
        self._restart()

    def _restart(self) -> None:
        self.epoch.phase = EpochPhase.FAILED
        if self.task.failed_ceremonies >= self.config.max_attempts:
            self._close_task("too many key ceremonies failed in a row")
        else:
            self._open_epoch()

    def _open_epoch(self) -> None:
        t = self.task.threshold
        pool = self.active & ~self.task.excluded
        free = pool & ~self.task.absent
        size = min(free.bit_count(), self.config.committee_max, 2 * t - 1 if t > 1 else 255)
        if size < max(2, t):
            return self._close_task("too few members left for a key committee")
        self.epoch = ModelEpoch(
            number=self.epoch.number + 1, phase=EpochPhase.COMMIT, pool=pool, finalized_before=self.task.finalized
        )
        self.seats = (free, size)
        return None

    def _open_round(self) -> None:
        e = self.epoch
        if self.active.bit_count() < self.config.min_commits:
            return self._close_task("too few active members for a round")
        old = self.config.epoch_rounds and self.task.finalized - e.finalized_before >= self.config.epoch_rounds
        if e.pool != self.active & ~self.task.excluded or e.renewal or old:
            return self._open_epoch()
        last = self.round
        self.round = ModelRound(number=last.number + 1, phase=RoundPhase.COMMIT, selected=self.active)
        self.coordinators = self.active & ~last.failed or self.active
        return None

    def _close_task(self, reason: str) -> None:
        self.task.open, self.task.end_reason = False, reason

    def _stop_round(self, reason: str) -> None:
        if self.round.phase in LIVE:
            self.round.phase, self.round.abort_reason = RoundPhase.ABORTED, reason

    def _abort(self, reason: str) -> None:
        self._stop_round(reason)
        self._open_round()

    def _close_if_answered(self) -> None:
        if self.round.committed | self.round.declined == self.round.selected:
            self._close()

    def _close(self) -> None:
        r = self.round
        commits, needed = r.committed.bit_count(), self.config.min_commits
        if commits < needed:
            return self._abort(f"too few updates ({commits} of {needed})")
        if not has(r.committed & ~r.failed, r.coordinator):
            r.failed |= 1 << r.coordinator
            if not self._hand_over(r.committed):
                return self._abort("no site is left that could coordinate")
        r.phase = RoundPhase.AGGREGATE
        return None

    def _hand_over(self, pool: int) -> bool:
        pool &= self.active & ~self.round.failed
        self.coordinators = pool
        return pool != 0

    def _replace_coordinator(self) -> None:
        r = self.round
        r.failed |= 1 << r.coordinator
        if r.phase is RoundPhase.COMMIT:
            self._hand_over(r.selected & ~r.declined)
        elif r.released:
            self._abort("aggregate failed after shares of it were released")
        elif self._new_attempt() and not self._hand_over(r.committed):
            self._abort("no site is left that could coordinate")

    def _new_attempt(self) -> bool:
        r = self.round
        if r.attempt + 1 >= self.config.max_attempts + r.spoils:
            self._abort("no coordinator produced a verified aggregate")
            return False
        r.attempt, r.phase = r.attempt + 1, RoundPhase.AGGREGATE
        r.voted_ok = r.voted_bad = r.included = r.split = 0
        r.shares = []
        return True

    def _spoil(self, places: bytes) -> None:
        r = self.round
        if places == r.spoiled:
            return self._abort("the aggregate was out of range in the same places again")
        r.released, r.spoils = False, r.spoils + 1
        if self._new_attempt():
            self._unopen()
            r.spoiled, r.sketched, r.sketches = places, False, []
        return None

    def _unopen(self) -> None:
        r = self.round
        r.open_quorum, r.opened, r.outcome, r.results = 0, b"", RoundOutcome.WHOLE, {}
        r.ballot_stage, r.cast, r.balloted, r.choices = BallotStage.NONE, 0, 0, {}

    def _open_with(self, quorum: int) -> None:
        self.round.open_quorum = quorum
        if quorum and self.round.phase is RoundPhase.VERIFIED:
            self._start_ballots()

    def _start_ballots(self) -> None:
        if self.round.split:
            self.round.ballot_stage = BallotStage.CAST

    def _next_stage(self) -> None:
        r = self.round
        shown = r.ballot_stage is BallotStage.CAST and r.cast
        r.ballot_stage = BallotStage.REVEAL if shown else BallotStage.COUNTED

    def _settle_verification(self) -> None:
        r, needed = self.round, self._majority()
        ok, bad = r.voted_ok.bit_count(), r.voted_bad.bit_count()
        spare = r.committed.bit_count() - needed
        if ok >= needed:
            r.phase = RoundPhase.VERIFIED
            if r.open_quorum:
                self._start_ballots()
        elif bad >= needed or (bad > spare and (ok > spare or not r.released)):
            r.released = r.released and (bad < needed or r.open_quorum != 0)
            self._replace_coordinator()

    def _strike(self, culprit: int) -> None:
        r = self.round
        r.disputed |= 1 << culprit
        self._unopen()
        left = self.epoch.committee & self.active & ~self.task.excluded & ~r.disputed
        if left.bit_count() < self.task.threshold:
            if self.epoch.struck_out:
                self._replace_holders()
            self.epoch.struck_out = True
            return self._abort("too few key holders above suspicion")
        self._open_with(next((q for _, q in r.shares if self._complete(q) and not self._suspected(q)), 0))
        return None

    def _replace_holders(self) -> None:
        if self.epoch.pool & ~self.epoch.committee:
            self.epoch.renewal = True
