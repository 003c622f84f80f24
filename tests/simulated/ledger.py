"""The ledger of a simulation: the model that tests hold against the real contract, with a clock, digests and a history.

Which transactions are right says tests/ledger_model.py alone. Added here is what it leaves out on purpose: deadlines, the
digests that were named, who is drawn, and what past rounds were.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.contract import ContractConfig
from bahefl_flwr.records import (
    AccusationRecord,
    BallotRecord,
    CeremonyRecord,
    EpochPhase,
    EpochRecord,
    LedgerView,
    Member,
    MemberStatus,
    RoundPhase,
    RoundRecord,
    ShareRecord,
    Task,
    UpdateRecord,
    members_in,
)
from ledger_model import BASE, CEREMONY, Model, Refused
from ledger_model_state import ModelEpoch, ModelRound
from simulated.clock import VirtualTime

ZERO = bytes(32)
CONTRACT = "0x" + "C0" * 20
CHAIN_ID = 20260
_BLOCK_S = 1.0


class TimedModel(Model):
    """The model with the deadlines that contracts/*.sol set."""

    def __init__(self, config: ContractConfig, members: int, clock: VirtualTime) -> None:
        super().__init__(config, members)
        self._clock = clock
        self.round_deadline = self.epoch_deadline = 0

    def in_(self, window_s: int) -> int:
        """The chain time so many seconds from now."""
        return int(self._clock.now) + window_s

    def _open_round(self) -> None:
        former = self.round
        super()._open_round()
        if self.round is not former:
            self.round_deadline = self.in_(self.config.commit_window_s)

    def _close(self) -> None:
        super()._close()
        if self.round.phase is RoundPhase.AGGREGATE:
            self.round_deadline = self.in_(self.config.aggregate_window_s)

    def _new_attempt(self) -> bool:
        begun = super()._new_attempt()
        if begun:
            self.round_deadline = self.in_(self.config.aggregate_window_s)
        return begun

    def reveal(self, i: int | None, *, layer: bool) -> None:
        seed = self.round.seed
        super().reveal(i, layer=layer)
        self._restart_window(not seed and self.round.seed)

    def draw_seed(self) -> None:
        super().draw_seed()
        self._restart_window(True)

    def release_sketch(self, i: int | None, quorum: int) -> None:
        sketched = self.round.sketched
        super().release_sketch(i, quorum)
        self._restart_window(not sketched and self.round.sketched)

    def _restart_window(self, passed_on: bool) -> None:
        if passed_on and self.task.screened:
            self.round_deadline = self.in_(self.config.aggregate_window_s)

    def submit_aggregate(self, i: int | None, included: int, split: int = 0) -> None:
        super().submit_aggregate(i, included, split)
        self.round_deadline = self.in_(self.config.verify_window_s)

    def _settle_verification(self) -> None:
        super()._settle_verification()
        if self.round.phase is RoundPhase.VERIFIED:
            self.round_deadline = self.in_(self.config.verify_window_s)

    def _open_with(self, quorum: int) -> None:
        if quorum and self.round.phase is RoundPhase.VERIFIED:
            self.round_deadline = self.in_(self.config.verify_window_s)
        super()._open_with(quorum)

    def _strike(self, culprit: int) -> None:
        self.round_deadline = self.in_(self.config.verify_window_s)
        super()._strike(culprit)

    def _next_stage(self) -> None:
        super()._next_stage()
        self.round_deadline = self.in_(self.config.verify_window_s)

    def confirm_opening(self, i: int | None, quorum: int, model: bytes, outcome: object = 0) -> None:
        before = self.round.opened
        super().confirm_opening(i, quorum, model, outcome)  # type: ignore[arg-type]
        if self.round.opened and not before:
            self.round_deadline = min(self.round_deadline, self.in_(self.config.open_grace_s))

    def _open_epoch(self) -> None:
        super()._open_epoch()
        self.epoch_deadline = self.in_(self.config.ceremony_window_s)

    def act(self, i: int | None, step: EpochPhase, key: bytes) -> None:
        epoch, phase = self.epoch, self.epoch.phase
        super().act(i, step, key)
        if self.epoch is epoch and self.epoch.phase is not phase:
            self.epoch_deadline = self.in_(self.config.ceremony_window_s)

    def accuse(self, i: int | None, culprit: int, *, evidence: bool) -> None:
        epoch, phase = self.epoch, self.epoch.phase
        super().accuse(i, culprit, evidence=evidence)
        if self.epoch is epoch and self.epoch.phase is not phase:
            self.epoch_deadline = self.in_(self.config.ceremony_window_s)


@dataclass(slots=True)
class Named:
    """What was named in a round, or fixed when it was opened."""

    epoch: int
    opened_at: int
    weight_total: int
    parent: bytes
    base: bytes
    deadline: int = 0
    seed: bytes = ZERO
    aggregates: dict[int, tuple[bytes, int, bytes, bytes]] = field(default_factory=dict)
    updates: dict[int, UpdateRecord] = field(default_factory=dict)
    shares: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    sketches: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    ballots: dict[int, bytes] = field(default_factory=dict)


class Chain:
    """The whole ledger; accounts read and write through it.

    Args:
      sealing_keys, anchors, addresses, weights: of the members, by index.
    """

    def __init__(
        self, config: ContractConfig, clock: VirtualTime, rng: random.Random, *, addresses: list[str], sealing_keys: list[bytes],
        anchors: list[bytes], weights: list[int], model: type[TimedModel] = TimedModel,
    ) -> None:  # fmt: skip
        self.model = model(config, len(addresses), clock)
        self.clock, self._rng, self.config = clock, rng, config
        self.addresses, self.sealing_keys, self.anchors, self.weights = addresses, sealing_keys, anchors, weights
        self.rounds: dict[int, ModelRound] = {}
        self.named: dict[int, Named] = {}
        self.epochs: dict[int, ModelEpoch] = {}
        self.epoch_deadlines: dict[int, int] = {}
        self.key_steps: dict[tuple[int, int, int], bytes] = {}
        self.accusations: dict[int, list[AccusationRecord]] = {}
        self.finalized: list[int] = []
        self.run = self.initial = self.params = ZERO
        self.transactions = 0
        self.on_change: list[Callable[[], None]] = []

    # ---- writing

    def transact(self, apply: Callable[[], None]) -> None:
        """One transaction.

        Raises:
          TransactionReverted: the model refuses it.
        """
        model = self.model
        deadline = model.epoch_deadline if model._in_ceremony() else model.round_deadline
        model.late = self.chain_time > deadline
        model.coordinators, model.seats = 0, None
        try:
            apply()
        except Refused as refusal:
            raise TransactionReverted(f"refused: {refusal}", reason=str(refusal)) from None
        self.transactions += 1
        self._adopt_draws()
        self._keep()
        for notice in self.on_change:
            notice()

    def _adopt_draws(self) -> None:
        model = self.model
        if model.seats:
            pool, size = model.seats
            model.epoch.committee = sum(1 << i for i in self._rng.sample(members_in(pool), size))
        if model.coordinators:
            model.round.coordinator = self._rng.choice(members_in(model.coordinators))

    def _keep(self) -> None:
        model, r = self.model, self.model.round
        self.epochs[model.epoch.number] = model.epoch
        self.epoch_deadlines[model.epoch.number] = model.epoch_deadline
        if r.number and r.number not in self.named:
            last = self.finalized[-1] if self.finalized else 0
            self.rounds[r.number] = r
            self.named[r.number] = Named(
                epoch=model.epoch.number, opened_at=self.chain_time,
                weight_total=sum(self.weights[i] for i in members_in(r.selected)),
                parent=self.round(last).aggregate if last else ZERO, base=self.round(last).opened if last else self.initial,
            )  # fmt: skip
        if r.number:
            self.named[r.number].deadline = model.round_deadline
            if r.seed and self.named[r.number].seed == ZERO:
                self.named[r.number].seed = hashlib.sha256(f"seed {r.number} {r.revealed} {self.anchors}".encode()).digest()

    # ---- reading

    @property
    def chain_time(self) -> int:
        """Whole seconds."""
        return int(self.clock.now)

    def view(self) -> LedgerView:
        """As `FederationLedger.view`."""
        return LedgerView(
            chain_time=self.chain_time, block_number=self.transactions, task=self.task(),
            epoch=self.epoch(self.model.epoch.number),
            round=self.round(self.model.round.number), last_finalized=self.finalized[-1] if self.finalized else 0,
            finalized_count=len(self.finalized), active=self.model.active,
        )  # fmt: skip

    def task(self) -> Task:
        """The task."""
        t = self.model.task
        return Task(
            number=t.number, run_digest=self.run, initial_model=self.initial, security_params=self.params, rounds=t.rounds,
            screened=t.screened, open=t.open, end_reason=t.end_reason, excluded=t.excluded, absent=t.absent,
        )  # fmt: skip

    def epoch(self, number: int) -> EpochRecord:
        """A key epoch."""
        e = self.epochs.get(number, self.model.epoch)
        agreed = next(iter(e.keys.values()), ZERO) if e.phase is EpochPhase.ACTIVE else ZERO
        return EpochRecord(
            epoch=e.number, phase=e.phase, threshold=self.model.task.threshold, committee=e.committee, committed=e.acted[0],
            revealed=e.acted[1], published=e.acted[2], confirmed=e.acted[3], key_digest=agreed,
            deadline=self.epoch_deadlines.get(number, 0), pool=e.pool, accused=e.accused, renewal=e.renewal,
            finalized_before=e.finalized_before,
        )  # fmt: skip

    def round(self, number: int) -> RoundRecord:
        """A round."""
        r = self.rounds.get(number, ModelRound())
        n = self.named.get(number, Named(epoch=0, opened_at=0, weight_total=0, parent=ZERO, base=ZERO))
        aggregate, size, weights, reasons = n.aggregates.get(r.attempt, (ZERO, 0, b"", b""))
        return RoundRecord(
            number=r.number, phase=r.phase, attempt=r.attempt, coordinator=r.coordinator, epoch=n.epoch, deadline=n.deadline,
            opened_at=n.opened_at, weight_total=n.weight_total, selected=r.selected, committed=r.committed, declined=r.declined,
            included=r.included, voted_ok=r.voted_ok, voted_bad=r.voted_bad, revealed=r.revealed, failed=r.failed,
            open_quorum=r.open_quorum, confirmed=r.confirmed, disputed=r.disputed, split=r.split, cast=r.cast,
            balloted=r.balloted,
            ballot_stage=r.ballot_stage, outcome=r.outcome, screen_seed=n.seed, spoiled=r.spoiled or ZERO, parent=n.parent,
            base=n.base, opened=n.base if r.opened == BASE else r.opened or ZERO, aggregate=aggregate, aggregate_size_bytes=size,
            weights=weights, reasons=reasons, abort_reason=r.abort_reason,
        )  # fmt: skip

    def members(self) -> tuple[Member, ...]:
        """Every member."""
        return tuple(
            Member(
                index=i, address=self.addresses[i],
                status=MemberStatus.ACTIVE if self.model.active >> i & 1 else MemberStatus.SUSPENDED,
                sealing_key=self.sealing_keys[i], onion_anchor=self.anchors[i], max_weight=self.weights[i], score=1, included=0,
                missed=0, rejected=0, coordinated=0, coordinator_faults=0,
            )
            for i in range(len(self.addresses))
        )  # fmt: skip

    def ceremony(self, epoch: int) -> tuple[CeremonyRecord, ...]:
        """What committee members named in an epoch."""
        return tuple(
            _ceremony_record(m, [self.key_steps.get((epoch, k, m), ZERO) for k in range(len(CEREMONY))])
            for m in members_in(self.epoch(epoch).committee)
        )

    def shares(self, number: int) -> tuple[ShareRecord, ...]:
        """Decryption shares of the present attempt."""
        r = self.rounds[number]
        return _released(r.shares, r.attempt, self.named[number].shares)

    def former_shares(self, number: int) -> tuple[ShareRecord, ...]:
        """Decryption shares of all attempts, newest first."""
        released = self.named[number].shares.items()
        return tuple(ShareRecord(member=m, quorum=q, digest=digest) for (_, m, q), digest in reversed(released))

    def sketches(self, number: int) -> tuple[ShareRecord, ...]:
        """Parts of the openings of sketches."""
        r = self.rounds[number]
        return _released(r.sketches, r.spoils, self.named[number].sketches)

    def ballots(self, number: int) -> tuple[BallotRecord, ...]:
        """Ballots that count."""
        r, named = self.rounds[number], self.named[number]
        return tuple(BallotRecord(member=m, commitment=named.ballots[m], choice=r.choices.get(m)) for m in members_in(r.cast))


def _ceremony_record(member: int, digests: list[bytes]) -> CeremonyRecord:
    commitment, seeds, parts, key = digests
    return CeremonyRecord(member=member, seed_commitment=commitment, sealed_seeds=seeds, key_parts=parts, key_digest=key)


def _released(entries: list[tuple[int, int]], key: int, digests: dict[tuple[int, int, int], bytes]) -> tuple[ShareRecord, ...]:
    quorums = list(dict.fromkeys(quorum for _, quorum in entries))
    ordered = sorted(entries, key=lambda e: (quorums.index(e[1]), e[0]))
    return tuple(ShareRecord(member=m, quorum=q, digest=digests[key, m, q]) for m, q in ordered)
