"""Claims about opened aggregates that are out of their range: the real contract on a chain."""

from __future__ import annotations

from dataclasses import replace

from bahefl_flwr.records import BallotStage, RoundOutcome, RoundPhase, mask_of
from ledger_sites import CONFIG, N, Sites, SixSites, digest, refused

ALL = 2**N - 1
ZERO = bytes(32)


def spoil(sites: Sites, *members: int, places: str = "places") -> None:
    """These members say where the opened sum is out of its range."""
    sites.confirm(*members, model=places, outcome=RoundOutcome.SPOILED)


def made_again(sites: Sites, name: str = "another aggregate") -> None:
    """The coordinator submits another aggregate; all attest it and a quorum opens it."""
    sites.aggregate(name)
    sites.attest()
    sites.open()


def test_a_majority_sends_a_spoiled_aggregate_back(opened: Sites) -> None:
    """Two of five are too few; with the third the same coordinator has to make another one, and has a whole window for it."""
    before = opened.round()
    spoil(opened, 0, 1)
    assert opened.phase() is RoundPhase.VERIFIED
    spoil(opened, 2)
    r = opened.round()
    assert (r.phase, r.attempt, r.coordinator, r.failed) == (RoundPhase.AGGREGATE, 1, before.coordinator, 0)
    assert r.spoiled == digest("places", 1)
    assert r.deadline - opened.view().chain_time > CONFIG.aggregate_window_s - 60


def test_a_spoiled_round_clears_all_that_was_opened(opened: Sites) -> None:
    """Votes, shares, confirmations and the aggregate; what was committed and revealed stays."""
    before = opened.round()
    spoil(opened, 0, 1, 2)
    r = opened.round()
    assert (r.open_quorum, r.confirmed, r.opened, r.outcome) == (0, 0, ZERO, RoundOutcome.WHOLE)
    assert (r.voted_ok, r.voted_bad, r.included, r.aggregate, r.weights, r.split) == (0, 0, 0, ZERO, b"", 0)
    assert opened.admin.shares(1) == ()
    assert (r.committed, r.revealed, r.base) == (before.committed, before.revealed, before.base)


def test_a_spoiled_aggregate_is_nobodys_fault(opened: Sites) -> None:
    """Not the coordinator's, who added what was committed; nor of those that voted or released shares."""
    spoil(opened, 0, 1, 2)
    assert [m.score for m in opened.admin.members()] == [32768] * N
    assert [m.coordinator_faults for m in opened.admin.members()] == [0] * N


def test_another_aggregate_makes_the_round_good(opened: Sites) -> None:
    """Without the culprit, whose fault is proved by now: it loses a quarter, and the round counts."""
    culprit = opened.others(opened.round().coordinator)[0]
    spoil(opened, 0, 1, 2)
    opened.aggregate("without", included=ALL & ~(1 << culprit), reasons=b"\12")
    opened.attest()
    opened.open()
    opened.confirm()
    opened.stranger.finalize(1)
    assert (opened.view().last_finalized, opened.admin.round(1).attempt) == (1, 1)
    assert opened.member(culprit).score == 32768 - 8192


def test_what_was_confirmed_before_does_not_count_again(opened: Sites) -> None:
    """Each attempt needs a majority of its own."""
    spoil(opened, 0, 1, 2)
    made_again(opened)
    opened.confirm(0, 1)
    assert opened.round().opened == ZERO
    opened.confirm(2)
    assert opened.round().opened == digest("model after", 1)


def test_a_minority_spoils_nothing(opened: Sites) -> None:
    """The others' model stands, and those two have had their say."""
    spoil(opened, 0, 1)
    opened.confirm(2, 3, 4)
    with refused("AlreadyConfirmed"):
        opened.confirm(0)
    opened.stranger.finalize(1)
    assert (opened.admin.round(1).spoiled, opened.admin.round(1).outcome) == (ZERO, RoundOutcome.WHOLE)


def test_different_places_do_not_add_up(opened: Sites) -> None:
    """Everybody sees the same sum, so honest sites name the same places."""
    spoil(opened, 0, 1)
    spoil(opened, 2, 3, places="other places")
    assert opened.phase() is RoundPhase.VERIFIED
    spoil(opened, 4, places="other places")
    assert opened.round().spoiled == digest("other places", 1)


def test_places_and_a_model_of_the_same_digest_do_not_add_up(opened: Sites) -> None:
    """What is said of it counts as well as the digest."""
    spoil(opened, 0, 1)
    opened.confirm(2, 3, model="places")
    assert (opened.phase(), opened.round().opened) == (RoundPhase.VERIFIED, ZERO)


def test_the_same_places_again_end_the_round(opened: Sites) -> None:
    """Proving who was to blame for them did not help: nothing more can be learnt from a third sum."""
    spoil(opened, 0, 1, 2)
    made_again(opened)
    spoil(opened, 0, 1, 2)
    assert opened.admin.round(1).abort_reason == "the aggregate was out of range in the same places again"
    assert (opened.round().number, opened.round().spoiled, opened.round().base) == (2, ZERO, digest("model"))


def test_other_places_are_another_question(opened: Sites) -> None:
    """However many there are: each convicts somebody, and uses up no attempt."""
    spoil(opened, 0, 1, 2, places="a")
    made_again(opened, "second")
    spoil(opened, 0, 1, 2, places="b")
    assert (opened.round().attempt, opened.round().spoiled) == (2, digest("b", 1))
    made_again(opened, "third")
    spoil(opened, 0, 1, 2, places="c")
    assert (opened.round().number, opened.round().attempt, opened.round().spoiled) == (1, 3, digest("c", 1))


def test_a_spoiled_aggregate_uses_up_no_attempt(registered: Sites) -> None:
    """Where only one is allowed, the coordinator still makes another sum."""
    registered.admin.set_config(replace(CONFIG, max_attempts=1))
    registered.start()
    registered.ceremony()
    registered.opened_round()
    spoil(registered, 0, 1, 2)
    assert (registered.round().number, registered.round().phase) == (1, RoundPhase.AGGREGATE)


def test_a_coordinator_that_makes_no_other_aggregate_is_replaced(opened: Sites) -> None:
    """Promise P4: anyone, after the deadline; the places stay on record for its successor."""
    former = opened.round().coordinator
    spoil(opened, 0, 1, 2)
    with refused("DeadlineNotReached"):
        opened.stranger.replace_coordinator(1)
    opened.pass_deadline()
    opened.stranger.replace_coordinator(1)
    r = opened.round()
    assert (r.phase, r.attempt, r.failed, r.spoiled) == (RoundPhase.AGGREGATE, 2, 1 << former, digest("places", 1))


def test_shares_of_the_next_aggregate_make_it_the_last(opened: Sites) -> None:
    """A spoiled sum is no licence to open many: once shares of the second are out, it must not fail (protocol rule 4)."""
    spoil(opened, 0, 1, 2)
    opened.aggregate("second")
    first, second, _ = opened.committee()
    opened.attest([first])
    opened.release(first, quorum=mask_of((first, second)))
    opened.pass_deadline()
    opened.stranger.replace_coordinator(1)
    assert opened.admin.round(1).abort_reason == "aggregate failed after shares of it were released"


def test_a_spoiled_round_asks_for_other_sketches(aggregating: Sites) -> None:
    """The seed stays; the parts named before answer another question, and are named anew."""
    aggregating.reveal_layers()
    first, second, _ = aggregating.committee()
    aggregating.sketch(first, second)
    seed = aggregating.round().screen_seed
    made_again(aggregating, "first")
    spoil(aggregating, 0, 1, 2)
    assert (aggregating.admin.sketches(1), aggregating.round().screen_seed) == ((), seed)
    aggregating.sketch(first, second)
    assert len(aggregating.admin.sketches(1)) == 2


def test_the_next_coordinator_after_a_spoiled_one_finds_the_new_sketches(aggregating: Sites) -> None:
    """They are kept for the round, as the first ones were."""
    aggregating.reveal_layers()
    first, second, _ = aggregating.committee()
    made_again(aggregating, "first")
    spoil(aggregating, 0, 1, 2)
    aggregating.sketch(first, second)
    aggregating.coordinator().resign(1, "tired")
    assert len(aggregating.admin.sketches(1)) == 2


def test_halves_can_be_spoiled_at_any_stage(six: SixSites) -> None:
    """Nobody has to vote on a sum that is out of range, and the ballots on it are void."""
    six.split_round()
    six.cast(0)
    spoil(six, 0, 1, 2, 3)
    r = six.round()
    assert (r.phase, r.split, r.ballot_stage, r.cast) == (RoundPhase.AGGREGATE, 0, BallotStage.NONE, 0)
    made_again(six)
    assert (six.round().open_quorum != 0, six.round().ballot_stage) == (True, BallotStage.NONE)


def test_halves_can_be_spoiled_while_ballots_are_shown_and_after(six: SixSites) -> None:
    """Each time the next aggregate is voted on from the beginning."""
    six.split_round()
    six.cast()
    spoil(six, 0, 1, 2, 3, places="a")
    six.aggregate("second", split=0b111000)
    six.attest()
    six.open()
    six.cast(choice=2)
    six.show(choice=2)
    assert [b.choice for b in six.admin.ballots(1)] == [2] * 6
    spoil(six, 0, 1, 2, 3, places="b")
    assert (six.phase(), six.admin.ballots(1)) == (RoundPhase.AGGREGATE, ())
