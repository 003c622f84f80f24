"""What FederationLedger must do, once more in a few lines of Python: the rules of contracts/*.sol without the election.

Digests, sizes and scores are left out; times are reduced to `late`: whether the present deadline has passed. Where the contract
draws a coordinator or a committee, the model knows who may be drawn (`coordinators`, `seats`) and is told who was.
"""

from __future__ import annotations

from bahefl_flwr.records import BallotStage, EpochPhase, RoundOutcome, RoundPhase, members_in
from ledger_model_state import ADMIN, CEREMONY, LIVE, ModelTask, Refused, State, has, refuse

__all__ = ["BASE", "CEREMONY", "LIVE", "Model", "Refused"]
BASE = b"base"
"""Stands for the model that the round starts from."""


class Model(State):
    """The ledger's transactions; each raises Refused where the contract must revert."""

    # ---- administration

    def start_task(self, threshold: int, rounds: int, *, screened: bool = False) -> None:
        """The administrator starts a task."""
        refuse(self.task.open, "TaskOpen")
        active = self.active.bit_count()
        refuse(active < self.config.min_commits, "TooFewMembers")
        seats = min(active, self.config.committee_max)
        threshold = threshold or seats // 2 + 1
        refuse(threshold > seats or (threshold > 1 and seats > 2 * threshold - 1), "BadThreshold")
        self.task = ModelTask(
            number=self.task.number + 1, threshold=threshold, rounds=rounds, open=True, screened=screened
        )  # fmt: skip
        self._open_epoch()

    def end_task(self) -> None:
        """The administrator ends the task."""
        refuse(not self.task.open, "NoTaskOpen")
        r = self.round
        refuse(r.phase in LIVE and (r.opened or self._ballots_open() or (r.open_quorum and not self.late)), "AlreadyOpened")
        if self._in_ceremony():
            self.epoch.phase = EpochPhase.FAILED
        self._stop_round("ended")
        self._close_task("ended")

    def renew_keys(self) -> None:
        """The administrator asks for new keys."""
        refuse(not self.task.open, "NoTaskOpen")
        refuse(self.epoch.phase is not EpochPhase.ACTIVE, "WrongEpochPhase")
        self.epoch.renewal = True

    def select_sites(self, mask: int) -> None:
        """The administrator narrows the round."""
        self._round_in(RoundPhase.COMMIT)
        r = self.round
        refuse(r.committed | r.declined, "SelectionFixed")
        refuse(mask & ~(r.selected & self.active) or mask.bit_count() < self.config.min_commits, "BadSelection")
        r.selected = mask
        if not has(mask, r.coordinator):
            self._hand_over(mask)

    def suspend(self, i: int) -> None:
        """The registrar suspends a member."""
        refuse(not has(self.active, i), "NotMember")
        self.active &= ~(1 << i)
        if self._in_ceremony() and has(self.epoch.committee, i):
            self._restart()
        r = self.round
        if r.phase not in LIVE or r.phase is RoundPhase.VERIFIED:
            return
        if r.coordinator == i and not has(r.failed, i):
            self._replace_coordinator()
        if r is self.round and r.phase is RoundPhase.COMMIT and has(r.selected & ~(r.committed | r.declined), i):
            r.selected &= ~(1 << i)
            self._close_if_answered()

    def reinstate(self, i: int) -> None:
        """The registrar lets a member back in."""
        refuse(has(self.active, i), "NotSuspended")
        self.active |= 1 << i

    # ---- key epochs

    def act(self, i: int | None, step: EpochPhase, key: bytes) -> None:
        """A committee member takes a step; the key counts in CONFIRM only."""
        e = self.epoch
        refuse(e.number == 0, "NotCurrentEpoch")
        refuse(e.phase != step or step not in CEREMONY, "WrongEpochPhase")
        refuse(self.late, "DeadlinePassed")
        self._seat(i)
        k = CEREMONY.index(step)
        refuse(has(e.acted[k], i), "AlreadyActed")
        e.acted[k] |= 1 << (i or 0)
        if step is EpochPhase.CONFIRM:
            e.keys[i or 0] = key
        if e.acted[k] != e.committee:
            return
        if step is EpochPhase.CONFIRM:
            self._conclude()
        else:
            e.phase = CEREMONY[k + 1]

    def expire_epoch(self) -> None:
        """Anybody ends a step that is over."""
        e = self.epoch
        refuse(e.number == 0, "NotCurrentEpoch")
        refuse(not self._in_ceremony(), "WrongEpochPhase")
        refuse(not self.late, "DeadlineNotReached")
        if e.phase is not EpochPhase.DISPUTE:
            self.task.absent |= e.committee & ~e.acted[CEREMONY.index(e.phase)]
        self._repeat()

    def accuse(self, i: int | None, culprit: int, *, evidence: bool) -> None:
        """A committee member accuses another."""
        e, r = self.epoch, self.round
        refuse(e.number == 0, "NotCurrentEpoch")
        refuse(not self.task.open, "NoTaskOpen")
        accuser = self._seat(i)
        refuse(not has(e.committee, culprit), "NotInCommittee")
        in_use = e.phase is EpochPhase.ACTIVE
        strikes = in_use and r.phase is RoundPhase.VERIFIED and has(r.open_quorum, culprit)
        disputes = not in_use and evidence and e.phase is not EpochPhase.DISPUTE
        refuse(disputes and e.phase < EpochPhase.PUBLISH, "WrongEpochPhase")
        accusers = e.accusers.get(culprit, 0)
        refuse(accuser == culprit or (has(accusers, accuser) and not strikes and not disputes), "AlreadyActed")
        e.accusers[culprit] = accusers | 1 << accuser
        e.accused |= 1 << culprit
        majority = 2 * e.accusers[culprit].bit_count() > e.committee.bit_count()
        if majority:
            self.task.excluded |= 1 << culprit
        if strikes:
            self._strike(culprit)
        elif not in_use and majority:
            self._restart()
        elif disputes:
            e.phase = EpochPhase.DISPUTE

    # ---- rounds

    def commit(self, i: int | None, *, base: bool, weight: bool) -> None:
        """A site commits; `base` and `weight` say whether those arguments are right."""
        self._answer(i)
        refuse(not base, "DigestMismatch")
        refuse(not weight, "BadWeight")
        self.round.committed |= 1 << (i or 0)
        self._close_if_answered()

    def decline(self, i: int | None) -> None:
        """A site declines."""
        self._answer(i)
        self.round.declined |= 1 << (i or 0)
        self._close_if_answered()

    def close_commits(self) -> None:
        """Anybody closes commits."""
        self._round_in(RoundPhase.COMMIT)
        refuse(not self.late, "DeadlineNotReached")
        self._close()

    def reveal(self, i: int | None, *, layer: bool) -> None:
        """A site reveals its layer before its vote; `layer` says whether it is its next one."""
        self._aggregating()
        self._committed(i)
        r = self.round
        refuse(has(r.revealed, i), "AlreadyRevealed")
        refuse(not layer, "BadReveal")
        r.revealed |= 1 << (i or 0)
        r.seed |= not r.committed & self.active & ~r.revealed

    def draw_seed(self) -> None:
        """Anybody fixes the seed."""
        self._aggregating()
        r = self.round
        refuse(r.seed, "AlreadyDrawn")
        refuse(r.revealed.bit_count() < self._majority(), "TooFewRevealed")
        r.seed = True

    def release_sketch(self, i: int | None, quorum: int) -> None:
        """A key holder names its part of the openings of the sketches."""
        self._aggregating()
        r = self.round
        refuse(not r.seed, "NoSeed")
        self._fits(i, quorum, self.task.excluded)
        refuse((i, quorum) in r.sketches, "AlreadyReleased")
        r.sketches.append((i or 0, quorum))
        r.sketched |= all((j, quorum) in r.sketches for j in members_in(quorum))

    def submit_aggregate(self, i: int | None, included: int, split: int = 0) -> None:
        """Somebody names the aggregate, with as many weights and reasons as belong to it."""
        self._round_in(RoundPhase.AGGREGATE)
        self._only_coordinator(i)
        refuse(self.late, "DeadlinePassed")
        refuse(self._unsketched(), "NotSketched")
        r = self.round
        refuse(included & ~r.committed or included.bit_count() < self.config.min_commits, "BadInclusion")
        halves, least = (split, included & ~split), max(3, self.config.min_commits)
        refuse(split and (split & ~included or min(map(int.bit_count, halves)) < least), "BadSplit")
        r.phase, r.included, r.split = RoundPhase.VERIFY, included, split

    def resign(self, i: int | None) -> None:
        """The coordinator gives up."""
        self._round_in(RoundPhase.COMMIT, RoundPhase.AGGREGATE)
        self._only_coordinator(i)
        refuse(has(self.round.failed, i), "NotCoordinator")
        self._replace_coordinator()

    def replace_coordinator(self) -> None:
        """Anybody passes the office on."""
        self._round_in(RoundPhase.AGGREGATE, RoundPhase.VERIFY)
        refuse(not self.late, "DeadlineNotReached")
        r = self.round
        again = self.task.screened and r.phase is RoundPhase.AGGREGATE and r.attempt > r.spoils
        if r.seed and (self._unsketched() or again):
            self._replace_holders()
        self._replace_coordinator()

    def attest(self, i: int | None, *, ok: bool, digest: bool, layer: bool) -> None:
        """A site votes; `digest` and `layer` say whether those arguments are right."""
        self._round_in(RoundPhase.VERIFY, RoundPhase.VERIFIED)
        r = self.round
        refuse(self.late, "DeadlinePassed")
        refuse(not digest, "DigestMismatch")
        self._committed(i)
        refuse(has(r.voted_ok | r.voted_bad, i), "AlreadyAttested")
        refuse(not has(r.revealed, i) and not layer, "BadReveal")
        r.revealed |= 1 << (i or 0)
        if ok:
            r.voted_ok |= 1 << (i or 0)
        else:
            r.voted_bad |= 1 << (i or 0)
        if r.phase is RoundPhase.VERIFY:
            self._settle_verification()

    def release_share(self, i: int | None, quorum: int) -> None:
        """A key holder releases a share."""
        self._round_in(RoundPhase.VERIFY, RoundPhase.VERIFIED)
        r = self.round
        refuse(r.phase is RoundPhase.VERIFY and self.late, "DeadlinePassed")
        self._fits(i, quorum, r.disputed | self.task.excluded)
        refuse(not has(r.voted_ok, i) and (has(r.committed, i) or r.phase is not RoundPhase.VERIFIED), "NotAttested")
        refuse((i, quorum) in r.shares, "AlreadyReleased")
        r.shares.append((i or 0, quorum))
        r.released = True
        if not r.open_quorum and self._complete(quorum):
            self._open_with(quorum)

    def cast_ballot(self, i: int | None) -> None:
        """A site casts its ballot."""
        self._balloting(BallotStage.CAST)
        self._committed(i)
        r = self.round
        refuse(has(r.cast, i), "AlreadyCast")
        r.cast |= 1 << (i or 0)
        if not r.committed & self.active & ~r.cast:
            self._next_stage()

    def reveal_ballot(self, i: int | None, choice: int, *, cast: bool) -> None:
        """A site shows a ballot; `cast` says whether it is the one it cast."""
        self._balloting(BallotStage.REVEAL)
        r = self.round
        refuse(not has(self.active, i), "NotMember")
        refuse(not has(r.cast, i), "NotCast")
        refuse(has(r.balloted, i), "AlreadyRevealed")
        refuse(not cast or choice > 2, "BadBallot")
        r.balloted |= 1 << (i or 0)
        r.choices[i or 0] = choice
        if not r.cast & self.active & ~r.balloted:
            self._next_stage()

    def close_ballots(self) -> None:
        """Anybody ends a stage of the vote."""
        self._round_in(RoundPhase.VERIFIED)
        refuse(not self._ballots_open(), "WrongStage")
        refuse(not self.late, "DeadlineNotReached")
        self._next_stage()

    def confirm_opening(self, i: int | None, quorum: int, model: bytes, outcome: RoundOutcome = RoundOutcome.WHOLE) -> None:
        """A site confirms what it opened."""
        self._round_in(RoundPhase.VERIFIED)
        r = self.round
        refuse(self.late, "DeadlinePassed")
        refuse(not r.open_quorum, "NotOpened")
        refuse(quorum != r.open_quorum, "QuorumMismatch")
        self._possible(model, outcome)
        self._committed(i)
        refuse(has(r.confirmed, i), "AlreadyConfirmed")
        r.results[i or 0] = model, outcome
        if r.opened or list(r.results.values()).count((model, outcome)) < self._majority():
            return
        if outcome is RoundOutcome.SPOILED:
            self._spoil(model)
        else:
            r.opened, r.outcome = model, outcome

    def _possible(self, model: bytes, outcome: RoundOutcome) -> None:
        r = self.round
        if outcome is not RoundOutcome.SPOILED:
            refuse(outcome > (RoundOutcome.NONE if r.split else RoundOutcome.WHOLE), "BadOutcome")
            refuse(r.split and r.ballot_stage is not BallotStage.COUNTED, "WrongStage")
            refuse(outcome is RoundOutcome.NONE and model != BASE, "DigestMismatch")

    def finalize(self) -> None:
        """Anybody settles the round."""
        self._round_in(RoundPhase.VERIFIED)
        r = self.round
        refuse(not r.opened, "NotOpened")
        refuse((r.voted_ok | r.voted_bad) & r.confirmed != r.committed and not self.late, "DeadlineNotReached")
        r.phase = RoundPhase.FINALIZED
        self.task.finalized += 1
        if self.task.finalized == self.task.rounds:
            self._close_task("")
        else:
            self._open_round()

    def abandon(self, *, admin: bool) -> None:
        """The administrator or anybody else gives the round up."""
        self._round_in(*LIVE)
        r = self.round
        verified = r.phase is RoundPhase.VERIFIED
        refuse(r.opened if verified else r.open_quorum, "AlreadyOpened")
        refuse(self._ballots_open(), "WrongStage")
        refuse(verified and not self.late, "DeadlineNotReached")
        refuse(not verified and not admin, ADMIN)
        if verified and not r.open_quorum:
            self._replace_holders()
        self._abort("given up")
