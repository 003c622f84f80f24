"""The simulated ledger as one account sees it: the methods of FederationLedger, whose transactions can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from eth_hash.auto import keccak

from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.ledger.connection import Receipt
from bahefl_flwr.ledger.contract import ContractConfig
from bahefl_flwr.records import (
    AccusationRecord,
    BallotRecord,
    CeremonyRecord,
    EpochPhase,
    EpochRecord,
    LedgerView,
    Member,
    RoundOutcome,
    RoundRecord,
    ShareRecord,
    UpdateRecord,
)
from ledger_model import BASE, CEREMONY, refuse
from simulated.ledger import CHAIN_ID, CONTRACT, ZERO, Chain

_RECEIPT = Receipt(transaction="0x", block_number=0, gas_used=1)


class Gate(Protocol):
    """What stands between an account and the chain: it may kill the sender, or lose what it sends or is told."""

    def before(self, what: str) -> None:
        """Before a transaction takes effect."""

    def after(self, what: str) -> None:
        """After it took effect, before the sender knows."""


class Account:
    """FederationLedger for one member; for the administrator with index None.

    Attributes:
      lagging: a view that the account's own node still has; the next reading returns it.
    """

    address = CONTRACT
    chain_id = CHAIN_ID

    def __init__(self, chain: Chain, gate: Gate, index: int | None = None) -> None:
        self._chain, self._gate, self._me = chain, gate, index
        self.lagging: LedgerView | None = None

    # ---- reading

    def config(self) -> ContractConfig:
        return self._chain.config

    def view(self) -> LedgerView:
        view, self.lagging = self.lagging or self._chain.view(), None
        return view

    def members(self) -> tuple[Member, ...]:
        return self._chain.members()

    def member(self, address: str) -> Member | None:
        return next((m for m in self.members() if m.address == address), None)

    def epoch(self, number: int) -> EpochRecord:
        return self._chain.epoch(number)

    def ceremony(self, epoch: int) -> tuple[CeremonyRecord, ...]:
        return self._chain.ceremony(epoch)

    def accusations(self, epoch: int) -> tuple[AccusationRecord, ...]:
        return tuple(self._chain.accusations.get(epoch, ()))

    def round(self, number: int) -> RoundRecord:
        return self._chain.round(number)

    def finalized_before(self, number: int) -> int:
        return max((n for n in self._chain.finalized if n < number), default=0)

    def updates(self, number: int) -> tuple[UpdateRecord, ...]:
        updates = self._chain.named[number].updates
        return tuple(updates[m] for m in sorted(updates))

    def shares(self, number: int) -> tuple[ShareRecord, ...]:
        return self._chain.shares(number)

    def former_shares(self, r: RoundRecord) -> tuple[ShareRecord, ...]:
        return self._chain.former_shares(r.number)

    def sketches(self, number: int) -> tuple[ShareRecord, ...]:
        return self._chain.sketches(number)

    def ballots(self, number: int) -> tuple[BallotRecord, ...]:
        return self._chain.ballots(number)

    # ---- key ceremony

    def commit_seeds(self, epoch: int, digest: bytes) -> Receipt:
        return self._act(epoch, EpochPhase.COMMIT, digest)

    def reveal_seeds(self, epoch: int, digest: bytes) -> Receipt:
        return self._act(epoch, EpochPhase.REVEAL, digest)

    def publish_key_parts(self, epoch: int, digest: bytes) -> Receipt:
        return self._act(epoch, EpochPhase.PUBLISH, digest)

    def confirm_key(self, epoch: int, key_digest: bytes) -> Receipt:
        return self._act(epoch, EpochPhase.CONFIRM, key_digest)

    def expire_epoch(self, epoch: int) -> Receipt:
        return self._send("expire_epoch", lambda: self._in_epoch(epoch) or self._chain.model.expire_epoch())

    def accuse(self, epoch: int, culprit: str, evidence: bytes, reason: str) -> Receipt:
        accused = self._chain.addresses.index(culprit)

        def apply() -> None:
            self._in_epoch(epoch)
            in_use, number = self._chain.model.epoch.phase is EpochPhase.ACTIVE, self._chain.model.round.number
            self._chain.model.accuse(self._me, accused, evidence=any(evidence))
            record = AccusationRecord(
                accuser=self._me or 0, culprit=accused, round=number if in_use else 0, evidence=evidence
            )  # fmt: skip
            self._chain.accusations.setdefault(epoch, []).append(record)

        return self._send(f"accuse {accused}: {reason}", apply)

    def _act(self, epoch: int, step: EpochPhase, digest: bytes) -> Receipt:
        def apply() -> None:
            self._in_epoch(epoch)
            # Before: the last one's confirmation opens the first round.
            self._chain.model.act(self._me, step, digest)
            self._chain.key_steps[epoch, CEREMONY.index(step), self._me or 0] = digest

        return self._send(f"{step.name.lower()} of epoch {epoch}", apply)

    # ---- rounds

    def end_task(self, reason: str) -> Receipt:
        return self._send("end_task", self._chain.model.end_task)

    def select_sites(self, number: int, selected: int) -> Receipt:
        return self._round(number, "select_sites", lambda: self._chain.model.select_sites(selected))

    def commit_update(self, number: int, digest: bytes, size_bytes: int, weight: int, base: bytes) -> Receipt:
        def apply() -> None:
            named = self._chain.named[number]
            rightly = 0 < weight <= self._chain.weights[self._me or 0]
            record = UpdateRecord(member=self._me or 0, digest=digest, size_bytes=size_bytes, weight=weight)
            self._chain.model.commit(self._me, base=base == named.base, weight=rightly)
            named.updates[self._me or 0] = record

        return self._round(number, "commit_update", apply)

    def decline(self, number: int, reason: str) -> Receipt:
        return self._round(number, f"decline ({reason})", lambda: self._chain.model.decline(self._me))

    def close_commits(self, number: int) -> Receipt:
        return self._round(number, "close_commits", self._chain.model.close_commits)

    def reveal(self, number: int, layer: bytes) -> Receipt:
        def apply() -> None:
            self._chain.model.reveal(self._me, layer=self._fits(layer))
            self._chain.anchors[self._me or 0] = layer

        return self._round(number, "reveal", apply)

    def draw_seed(self, number: int) -> Receipt:
        return self._round(number, "draw_seed", self._chain.model.draw_seed)

    def release_sketch(self, number: int, quorum: int, digest: bytes) -> Receipt:
        def apply() -> None:
            spoils = self._chain.model.round.spoils
            self._chain.model.release_sketch(self._me, quorum)
            self._chain.named[number].sketches[spoils, self._me or 0, quorum] = digest

        return self._round(number, f"release_sketch for {quorum:b}", apply)

    def submit_aggregate(
        self, number: int, digest: bytes, size_bytes: int, included: int, split: int, weights: bytes, reasons: bytes
    ) -> Receipt:
        def apply() -> None:
            attempt = self._chain.model.round.attempt
            self._chain.model.submit_aggregate(self._me, included, split)
            self._chain.named[number].aggregates[attempt] = digest, size_bytes, weights, reasons

        return self._round(number, f"submit_aggregate {digest.hex()[:8]} of {included:b}/{split:b}", apply)

    def resign(self, number: int, reason: str) -> Receipt:
        return self._round(number, f"resign ({reason})", lambda: self._chain.model.resign(self._me))

    def replace_coordinator(self, number: int) -> Receipt:
        return self._round(number, "replace_coordinator", self._chain.model.replace_coordinator)

    def attest(self, number: int, digest: bytes, ok: bool, reveal: bytes) -> Receipt:
        def apply() -> None:
            fits = self._fits(reveal)
            named = self._chain.round(number).aggregate
            self._chain.model.attest(self._me, ok=ok, digest=digest == named, layer=fits)
            if fits:
                self._chain.anchors[self._me or 0] = reveal

        return self._round(number, f"attest {ok} to {digest.hex()[:8]}", apply)

    def release_share(self, number: int, quorum: int, digest: bytes, aggregate: bytes) -> Receipt:
        def apply() -> None:
            attempt = self._chain.model.round.attempt
            refuse(aggregate != self._chain.round(number).aggregate, "DigestMismatch")
            self._chain.model.release_share(self._me, quorum)
            self._chain.named[number].shares[attempt, self._me or 0, quorum] = digest

        return self._round(number, f"release_share for {quorum:b} of {aggregate.hex()[:8]}", apply)

    def cast_ballot(self, number: int, commitment: bytes) -> Receipt:
        def apply() -> None:
            self._chain.model.cast_ballot(self._me)
            self._chain.named[number].ballots[self._me or 0] = commitment

        return self._round(number, "cast_ballot", apply)

    def reveal_ballot(self, number: int, choice: int, salt: bytes) -> Receipt:
        def apply() -> None:
            sealed = ballot_commitment(number, self._chain.addresses[self._me or 0], choice, salt)
            cast = self._chain.named[number].ballots.get(self._me or 0) == sealed
            self._chain.model.reveal_ballot(self._me, choice, cast=cast)

        return self._round(number, f"reveal_ballot {choice}", apply)

    def close_ballots(self, number: int) -> Receipt:
        return self._round(number, "close_ballots", self._chain.model.close_ballots)

    def confirm_opening(self, number: int, quorum: int, digest: bytes, outcome: RoundOutcome) -> Receipt:
        def apply() -> None:
            model = BASE if digest == self._chain.named[number].base and outcome is RoundOutcome.NONE else digest
            self._chain.model.confirm_opening(self._me, quorum, model, outcome)

        return self._round(number, f"confirm_opening {outcome.name} {digest.hex()[:8]}", apply)

    def finalize(self, number: int) -> Receipt:
        def apply() -> None:
            before = len(self._chain.finalized)
            # The model opens the next round within the same transaction.
            self._chain.finalized.append(number)
            try:
                self._chain.model.finalize()
            except BaseException:
                del self._chain.finalized[before:]
                raise

        return self._round(number, "finalize", apply)

    def abandon(self, number: int, reason: str) -> Receipt:
        return self._round(number, f"abandon ({reason})", lambda: self._chain.model.abandon(admin=self._me is None))

    # ---- internals

    def _fits(self, layer: bytes) -> bool:
        return layer != ZERO and keccak(layer) == self._chain.anchors[self._me or 0]

    def _in_epoch(self, epoch: int) -> None:
        refuse(epoch != self._chain.model.epoch.number, "NotCurrentEpoch")

    def _round(self, number: int, what: str, apply: Callable[[], object]) -> Receipt:
        def current() -> None:
            refuse(number != self._chain.model.round.number, "NotCurrentRound")
            apply()

        return self._send(f"{what} in round {number}", current)

    def _send(self, what: str, apply: Callable[[], object]) -> Receipt:
        self._gate.before(what)
        self._chain.transact(lambda: apply() and None)  # type: ignore[arg-type]
        self._gate.after(what)
        return _RECEIPT
