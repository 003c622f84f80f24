"""Rule g: ballots, the outcome of a conflict, and what a contested round does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import RoundOutcome, mask_of
from bahefl_flwr.screening.ballots import anchor_choice, ballot_of, outcome_of
from bahefl_flwr.screening.decision import Decision, Half
from bahefl_flwr.screening.fixed_point import ONE, fixed
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules
from screening_rounds import HOLD, RULES

INF = float("inf")


def conflict(
    *, priors: tuple[float, float] = (0, 0), reputations: tuple[float, float] = (1, 1), separation: float = 0.5
) -> Decision:
    """Ten sites, the even ones in the first half."""
    masks = (mask_of(range(0, 10, 2)), mask_of(range(1, 10, 2)))
    halves = (
        Half(members=mask, prior=fixed(prior), reputation=fixed(reputation))
        for mask, prior, reputation in zip(masks, priors, reputations, strict=True)
    )
    return Decision(
        weights=dict.fromkeys(range(10), 8),
        reasons={},
        norm=ONE,
        scores={},
        separation=fixed(separation),
        threshold=RULES.split,
        halves=tuple(halves),
    )


def never_asked() -> int:
    raise AssertionError("the anchor was asked")


def outcome(
    decision: Decision,
    votes: str = "",
    *,
    history: History | None = None,
    rules: Rules = HOLD,
    anchor: Callable[[], int] = never_asked,
) -> RoundOutcome:
    """The outcome where site k revealed the k-th ballot; `-` revealed none."""
    ballots = {member: int(vote) for member, vote in enumerate(votes) if vote != "-"}
    return outcome_of(decision, history or History.empty(), rules, ballots or None, anchor)


def test_no_conflict_takes_all() -> None:
    """Without halves nothing is asked and everything accepted is added."""
    assert outcome(replace(conflict(), halves=()), "1111111111") == RoundOutcome.WHOLE


@pytest.mark.parametrize(
    ("votes", "priors", "expected"),
    [
        pytest.param("0000001111", (0, 0), RoundOutcome.WHOLE, id="more than half for the whole"),
        pytest.param("0000011111", (0, 0), RoundOutcome.NONE, id="half for the whole is not enough, nor is half for a half"),
        pytest.param("1111112222", (0, 0), RoundOutcome.FIRST, id="six of ten suffice where the split is sure"),
        pytest.param("2222221111", (0, 0), RoundOutcome.SECOND, id="the same for the second half"),
        pytest.param("1111122222", (0, 0), RoundOutcome.NONE, id="five to five is contested"),
        pytest.param("1111112222", (-0.4, 0), RoundOutcome.NONE, id="a majority that the history speaks against is contested"),
        pytest.param("1111112222", (-0.2, 0), RoundOutcome.FIRST, id="a slightly worse history does not stop a majority"),
        pytest.param("1111122222", (1, 0), RoundOutcome.FIRST, id="history decides where votes are even"),
        pytest.param("1111122222", (0, 1), RoundOutcome.SECOND, id="for the second half as well"),
        pytest.param("1111122222", (0.7, 0), RoundOutcome.NONE, id="a small lead does not"),
        pytest.param("1111111222", (-1, 1), RoundOutcome.SECOND, id="history outweighs seven of ten votes"),
        pytest.param("", (0, 0), RoundOutcome.NONE, id="nobody voted and no history"),
        pytest.param("", (1, 0), RoundOutcome.FIRST, id="nobody voted but history is clear"),
        pytest.param("---------2", (0, 0), RoundOutcome.SECOND, id="silent sites do not count"),
    ],
)
def test_outcome_table(votes: str, priors: tuple[float, float], expected: RoundOutcome) -> None:
    """Every way a sure split can end under the policy hold."""
    assert outcome(conflict(priors=priors), votes) == expected


def test_unsure_split_needs_a_greater_majority() -> None:
    """Four of seven decide a sure split and not one below it, where six of ten do. Nor does the whole win a contested one."""
    unsure = conflict(separation=0.3)
    assert outcome(conflict(), "1111222---") == RoundOutcome.FIRST
    assert outcome(unsure, "1111222---") == RoundOutcome.NONE
    assert outcome(unsure, "1111112222") == RoundOutcome.FIRST


def test_conflict_without_split_test_is_unsure() -> None:
    """Halves of unlike norms in a first round need the greater majority, too."""
    assert outcome(replace(conflict(), separation=None), "1111222---") == RoundOutcome.NONE


def test_votes_count_by_reputation() -> None:
    """Six sites without reputation do not outvote four with it."""
    history = replace(History.empty(), reputation=dict.fromkeys(range(6), 0))
    assert outcome(conflict(), "1111112222", history=history) == RoundOutcome.SECOND


def test_reputation_of_a_half_leads() -> None:
    """A half whose sites were left out before loses an even vote."""
    assert outcome(conflict(reputations=(0.05, 1)), "1111122222") == RoundOutcome.SECOND


@pytest.mark.parametrize("choice", [RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE])
def test_anchor_decides_a_contested_round(choice: RoundOutcome) -> None:
    """Under the policy anchor its answer is the outcome, no update included."""
    assert outcome(conflict(), "1111122222", rules=RULES, anchor=lambda: int(choice)) == choice


def test_anchor_is_asked_in_a_contested_round_only() -> None:
    """Where votes or history decide, nobody evaluates the anchor."""
    assert outcome(conflict(), "1111112222", rules=RULES) == RoundOutcome.FIRST


@pytest.mark.parametrize("answer", [0, 4, -1])
def test_anchor_never_takes_the_whole(answer: int) -> None:
    """An anchor that answers anything but a half or no update is refused."""
    with pytest.raises(ProtocolError, match="anchor"):
        outcome(conflict(), "1111122222", rules=RULES, anchor=lambda: answer)


def test_unknown_ballot_is_refused() -> None:
    """A ballot is 0, 1 or 2."""
    with pytest.raises(ProtocolError, match="site 0 voted 3"):
        outcome(conflict(), "3")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 0.98, 0.99), 0),
        ((1.0, 0.96, 0.99), 1),
        ((1.0, 0.96, 0.95), 2),
        ((1.0, 0.9, 0.9), 1),
        ((INF, 2.0, 1.0), 2),
        ((float("nan"), 1.0, float("nan")), 1),
        ((1.0, float("nan"), INF), 0),
        ((INF, INF, INF), 0),
    ],
)
def test_ballot_of_a_site(losses: tuple[float, float, float], expected: int) -> None:
    """A half gets the vote only if it lowers the site's own loss by three parts in a hundred; unusable losses are infinite."""
    assert ballot_of(*losses, gain=0.03) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.6, 0.4, 0.5), RoundOutcome.FIRST),
        ((0.6, 0.5, 0.4), RoundOutcome.SECOND),
        ((0.6, 0.5, 0.5), RoundOutcome.NONE),
        ((0.4, 0.5, 0.6), RoundOutcome.NONE),
        ((0.5, 0.5, 0.6), RoundOutcome.NONE),
        ((0.6, 0.4, 0.4003), RoundOutcome.NONE),
        ((0.4003, 0.4, 0.5), RoundOutcome.NONE),
        ((0.6, 0.4, 0.401), RoundOutcome.FIRST),
        ((-0.1, -0.3, -0.2), RoundOutcome.FIRST),
        ((INF, float("nan"), 0.5), RoundOutcome.SECOND),
        ((INF, INF, float("nan")), RoundOutcome.NONE),
    ],
)
def test_anchor_picks_a_half_that_beats_the_whole(losses: tuple[float, float, float], expected: RoundOutcome) -> None:
    """The half whose model does best on public data, by more than rounding does; else, or where it cannot be said, no update."""
    assert anchor_choice(*losses) == expected
