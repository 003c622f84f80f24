"""Claims about aggregates with two halves, the sites' ballots on them, and what follows: the real contract on a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.records import BallotRecord, BallotStage, RoundOutcome, RoundPhase, mask_of, members_in
from ledger_sites import CONFIG, STRANGER, Sites, SixSites, digest, refused

ALL = 0b111111
FIRST, SECOND = 0b000111, 0b111000
ZERO = bytes(32)
START = 32768
GAIN = (65535 - START) // 8


# ---- halves


@pytest.mark.parametrize("split", [0b110000, 0b011110, 0b1, ALL, 0b1110000, 1 << 200 | SECOND])
def test_no_half_is_smaller_than_three_updates(six: SixSites, split: int) -> None:
    """Nor does it hold anything but included updates, nor all of them."""
    six.commit()
    with refused("BadSplit"):
        six.aggregate(split=split)


def test_no_half_is_smaller_than_an_aggregate_may_be(six: SixSites) -> None:
    """Where an aggregate needs four updates, three do not hide one another either."""
    six.admin.end_task("other settings")
    six.admin.set_config(replace(CONFIG, min_commits=4))
    six.start()
    six.ceremony()
    six.commit()
    with refused("BadSplit"):
        six.aggregate(split=SECOND)


def test_five_updates_have_no_halves(sites: Sites) -> None:
    """One of them would show two sites' sum."""
    sites.commit()
    for split in (0b00011, 0b00111):
        with refused("BadSplit"):
            sites.aggregate(split=split)


def test_an_update_that_was_left_out_is_in_neither_half(six: SixSites) -> None:
    """Five that are left cannot be split, whichever of the six is missing."""
    six.commit()
    with refused("BadSplit"):
        six.aggregate(included=ALL & ~0b1, split=SECOND, reasons=b"\5")


def test_halves_are_read_back(six: SixSites) -> None:
    """`split` is the second half; without one there is nothing to vote on."""
    six.commit()
    six.aggregate(split=0b101010)
    r = six.round()
    assert (r.included, r.split, r.ballot_stage, r.outcome) == (ALL, 0b101010, BallotStage.NONE, RoundOutcome.WHOLE)


def test_a_rejected_split_is_forgotten(six: SixSites) -> None:
    """The next coordinator decides anew."""
    six.commit()
    six.aggregate(split=SECOND)
    six.attest([0, 1, 2], ok=False)
    assert (six.phase(), six.round().split, six.round().included) == (RoundPhase.AGGREGATE, 0, 0)


# ---- casting and showing


def test_the_last_ballot_ends_a_stage(six: SixSites) -> None:
    """Nobody has to close what everybody has done."""
    six.split_round()
    six.cast(0, 1, 2, 3, 4)
    assert six.round().ballot_stage is BallotStage.CAST
    six.chain.clock.advance(300)
    six.cast(5)
    assert (six.round().ballot_stage, six.round().cast) == (BallotStage.REVEAL, ALL)
    assert six.round().deadline - six.view().chain_time > CONFIG.verify_window_s - 60
    six.show(0, 1, 2, 3, 4)
    assert six.round().ballot_stage is BallotStage.REVEAL
    six.show(5)
    assert (six.round().ballot_stage, six.round().balloted) == (BallotStage.COUNTED, ALL)


def test_ballots_begin_with_the_verification_of_what_is_open_already(six: SixSites) -> None:
    """A quorum may be complete before the majority has voted; until then there is nothing to vote on."""
    six.commit()
    six.aggregate(split=SECOND)
    holders = six.committee()[:2]
    six.attest(holders)
    six.open()
    assert (six.phase(), six.round().ballot_stage) == (RoundPhase.VERIFY, BallotStage.NONE)
    with refused("WrongPhase"):
        six.cast(0)
    six.attest(six.others(*holders)[:2])
    assert (six.phase(), six.round().ballot_stage) == (RoundPhase.VERIFIED, BallotStage.CAST)


def test_a_choice_is_hidden_until_casting_is_over(six: SixSites) -> None:
    """Before, the ledger knows a commitment; afterwards whoever cast it shows it."""
    six.split_round()
    six.cast(0, 1, choice=2)
    with refused("WrongStage"):
        six.show(0, choice=2)
    sealed = [ballot_commitment(1, six.accounts[i].address, 2, digest("salt", i)) for i in (0, 1)]
    assert six.admin.ballots(1) == tuple(BallotRecord(member=i, commitment=sealed[i], choice=None) for i in (0, 1))
    six.pass_deadline()
    six.stranger.close_ballots(1)
    six.show(1, choice=2)
    assert [(b.member, b.choice) for b in six.admin.ballots(1)] == [(0, None), (1, 2)]
    assert six.round().balloted == 0b10


def test_a_ballot_cannot_be_changed(six: SixSites) -> None:
    """Neither cast twice, nor shown as another, nor shown twice."""
    six.split_round()
    six.cast(0, choice=1)
    with refused("AlreadyCast"):
        six.cast(0, choice=2)
    six.cast(1, 2, 3, 4, 5)
    for choice in (0, 2):
        with refused("BadBallot"):
            six.show(0, choice=choice)
    with refused("BadBallot"):
        six.ledgers[0].reveal_ballot(1, 1, digest("another salt"))
    six.show(0)
    with refused("AlreadyRevealed"):
        six.show(0)


def test_a_copied_ballot_cannot_be_shown(six: SixSites) -> None:
    """A commitment names its site: whoever repeats another's has none of its own."""
    six.split_round()
    six.cast(0)
    six.ledgers[1].cast_ballot(1, six.admin.ballots(1)[0].commitment)
    six.cast(2, 3, 4, 5)
    six.show(0)
    with refused("BadBallot"):
        six.ledgers[1].reveal_ballot(1, 1, digest("salt", 0))


def test_a_choice_is_one_of_three(six: SixSites) -> None:
    """Anything else cannot be shown, even if it was cast."""
    six.split_round()
    six.cast(choice=3)
    with refused("BadBallot"):
        six.show(0, choice=3)


def test_ballots_come_from_members_in_time(six: SixSites) -> None:
    """Strangers have none; a commitment is never empty, and nobody shows what it did not cast."""
    six.split_round()
    with refused("NotMember"):
        six.stranger.cast_ballot(1, digest("ballot"))
    with refused("ZeroDigest"):
        six.ledgers[0].cast_ballot(1, ZERO)
    six.cast(0, 1)
    six.pass_deadline()
    with refused("DeadlinePassed"):
        six.cast(2)
    six.stranger.close_ballots(1)
    with refused("NotCast"):
        six.show(2)
    with refused("NotMember"):
        six.stranger.reveal_ballot(1, 1, digest("salt"))
    six.pass_deadline()
    with refused("DeadlinePassed"):
        six.show(0)


def test_a_site_without_an_update_has_no_ballot(six: SixSites) -> None:
    """One that joined during the round is an active member, and has no say in it."""
    six.admin.whitelist([STRANGER.address], [1])
    six.stranger.register(digest("key"), digest("tip"))
    six.split_round()
    with refused("NotCommitted"):
        six.stranger.cast_ballot(1, digest("ballot"))


def test_an_aggregate_without_halves_has_no_ballots(opened: Sites) -> None:
    """Nothing to cast, to show or to close."""
    assert opened.round().ballot_stage is BallotStage.NONE
    with refused("WrongStage"):
        opened.ledgers[0].cast_ballot(1, digest("ballot"))
    with refused("WrongStage"):
        opened.ledgers[0].reveal_ballot(1, 1, digest("salt"))
    opened.pass_deadline()
    with refused("WrongStage"):
        opened.stranger.close_ballots(1)


def test_a_suspended_site_is_not_waited_for(six: SixSites) -> None:
    """Neither for its ballot nor for showing it."""
    six.split_round()
    six.cast(0)
    six.admin.suspend(six.accounts[0].address, "off line")
    six.admin.suspend(six.accounts[1].address, "off line")
    with refused("NotMember"):
        six.cast(1)
    six.cast(2, 3, 4, 5)
    assert six.round().ballot_stage is BallotStage.REVEAL
    six.show(2, 3, 4, 5)
    assert (six.round().ballot_stage, six.round().balloted) == (BallotStage.COUNTED, 0b111100)


# ---- deadlines (promise P4)


def test_anyone_closes_a_stage_after_its_deadline(six: SixSites) -> None:
    """Not before; and with nobody's ballot there is nothing to show."""
    six.split_round()
    six.cast(0)
    with refused("DeadlineNotReached"):
        six.stranger.close_ballots(1)
    six.pass_deadline()
    six.stranger.close_ballots(1)
    assert six.round().ballot_stage is BallotStage.REVEAL
    with refused("DeadlineNotReached"):
        six.stranger.close_ballots(1)
    six.pass_deadline()
    six.stranger.close_ballots(1)
    assert (six.round().ballot_stage, six.round().balloted) == (BallotStage.COUNTED, 0)
    six.confirm(model="first", outcome=RoundOutcome.FIRST)
    six.stranger.finalize(1)
    assert six.view().last_finalized == 1


def test_a_vote_that_is_late_is_closed_and_not_the_round_discarded(six: SixSites) -> None:
    """Whoever dislikes the halves it has read must not get rid of them by being quick."""
    six.split_round()
    six.cast(0)
    for _ in ("cast", "shown"):
        six.pass_deadline()
        with refused("WrongStage"):
            six.stranger.abandon(1, "too slow")
        with refused("AlreadyOpened"):
            six.admin.end_task("I do not like this model")
        six.stranger.close_ballots(1)
    six.pass_deadline()
    six.stranger.abandon(1, "no agreement")
    assert six.admin.round(1).abort_reason == "no agreement"


# ---- outcomes


def test_an_aggregate_without_halves_is_taken_up_whole(opened: Sites) -> None:
    """There is nothing else in it, and no such number."""
    quorum = opened.round().open_quorum
    for outcome in (RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE):
        with refused("BadOutcome"):
            opened.ledgers[0].confirm_opening(1, quorum, digest("m"), outcome)
    with refused("BadOutcome"):
        opened.ledgers[0]._send("confirmOpening", 1, quorum, digest("m"), 5)


def test_nothing_is_confirmed_before_the_ballots_are_counted(six: SixSites) -> None:
    """Neither both halves, nor one of them, nor none: not while ballots are cast, nor while they are shown."""
    six.split_round()
    for step in (six.cast, six.show):
        for outcome in (RoundOutcome.WHOLE, RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE):
            with refused("WrongStage"):
                six.confirm(0, outcome=outcome)
        step()
    six.confirm(0)
    with refused("BadOutcome"):
        six.ledgers[1]._send("confirmOpening", 1, six.round().open_quorum, digest("m"), 5)


def test_confirmations_of_different_outcomes_do_not_add_up(six: SixSites) -> None:
    """The same digest, but another half: three and three settle nothing."""
    six.counted_round()
    six.confirm(0, 1, 2, outcome=RoundOutcome.FIRST)
    six.confirm(3, 4, 5, outcome=RoundOutcome.SECOND)
    assert six.round().opened == ZERO


@pytest.mark.parametrize(
    ("outcome", "taken_up"), [(RoundOutcome.WHOLE, ALL), (RoundOutcome.FIRST, FIRST), (RoundOutcome.SECOND, SECOND)]
)  # fmt: skip
def test_only_the_half_that_counts_gains(six: SixSites, outcome: RoundOutcome, taken_up: int) -> None:
    """The others' scores and records stay as they were: to be outvoted is no fault."""
    six.counted_round()
    six.confirm(outcome=outcome)
    six.stranger.finalize(1)
    r = six.admin.round(1)
    assert (r.phase, r.outcome, r.opened) == (RoundPhase.FINALIZED, outcome, digest("model after", 1))
    members = six.admin.members()
    assert [m.score - START for m in members] == [GAIN * (taken_up >> i & 1) for i in range(6)]
    assert [(m.included, m.rejected) for m in members] == [(taken_up >> i & 1, 0) for i in range(6)]


def test_a_round_that_takes_up_neither_half_keeps_the_model(six: SixSites) -> None:
    """It must name the model from before; it is final, counts as a round, and nobody gains or loses."""
    six.counted_round()
    with refused("DigestMismatch"):
        six.confirm(0, outcome=RoundOutcome.NONE)
    r = six.round()
    for ledger in six.ledgers:
        ledger.confirm_opening(1, r.open_quorum, r.base, RoundOutcome.NONE)
    six.stranger.finalize(1)
    over = six.admin.round(1)
    assert (over.outcome, over.opened, six.view().finalized_count) == (RoundOutcome.NONE, r.base, 1)
    assert (six.round().base, six.round().parent) == (r.base, over.aggregate)
    assert [m.score for m in six.admin.members()] == [START] * 6


def test_silence_costs_only_those_whose_update_counts(six: SixSites) -> None:
    """One of each half never votes on the aggregate: the one in the half that counts loses an eighth."""
    six.commit()
    six.aggregate(split=SECOND)
    silent = (min(set(members_in(FIRST)) - set(six.committee()[:2])), max(set(members_in(SECOND)) - set(six.committee()[:2])))
    six.attest(six.others(*silent))
    six.open()
    six.cast()
    six.show()
    six.confirm(outcome=RoundOutcome.FIRST)
    six.pass_deadline()
    six.stranger.finalize(1)
    assert [six.member(i).score for i in silent] == [START - START // 8, START]


# ---- a struck quorum


def test_a_struck_quorum_resets_the_ballots(six: SixSites) -> None:
    """They were about halves that a wrong share may have bent: the next quorum's are voted on anew, also by those that had."""
    culprit, partner, accuser = six.committee()
    six.counted_round()
    six.confirm(outcome=RoundOutcome.FIRST)
    six.accuse(accuser, culprit)
    r = six.round()
    assert (r.ballot_stage, r.cast, r.balloted, r.opened, r.outcome) == (BallotStage.NONE, 0, 0, ZERO, RoundOutcome.WHOLE)
    assert (r.split, six.admin.ballots(1)) == (SECOND, ())
    six.release(partner, accuser)
    assert six.round().ballot_stage is BallotStage.CAST
    six.cast(choice=2)
    assert [b.choice for b in six.admin.ballots(1)] == [None] * 6
    six.show(choice=2)
    six.confirm(outcome=RoundOutcome.SECOND)
    six.stranger.finalize(1)
    assert (six.admin.round(1).outcome, six.admin.round(1).open_quorum) == (RoundOutcome.SECOND, mask_of((partner, accuser)))
