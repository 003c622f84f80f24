"""Screening under generated rounds: order, names and scale of the sites do not matter, and honest sites stay in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.records import ExclusionReason, RoundOutcome, mask_of, members_in
from bahefl_flwr.screening.acceptance import next_history
from bahefl_flwr.screening.decision import Decision, decide
from bahefl_flwr.screening.figures import Sketch, figures
from bahefl_flwr.screening.fixed_point import ONE
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import Record, check_record, decode_record, encode_record
from screening_rounds import RULES, Vector, around, direction, references, sketches, usual_history

CENTRE = direction(1)
SITES = 9

attacks = st.sampled_from(["none", "flip", "copies", "zero", "large", "camp", "replay", "noise"])


def hostile(name: str, count: int, seed: int) -> list[Vector]:
    """What `count` attackers send."""
    honest = around(CENTRE, count, 0.9, seed)
    other = direction(seed + 1000)
    return {
        "none": honest,
        "flip": [-v for v in honest],
        "copies": [honest[0]] * count,
        "zero": [0.01 * v for v in honest],
        "large": [7 * v for v in honest],
        "camp": around(other, count, 0.5, seed + 1),
        "replay": [CENTRE + 0.05 * v for v in around(other, count, 0.5, seed + 1)],
        "noise": around(other, count, 4.0, seed + 1),
    }[name]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[dict[int, Sketch], History]:
    """Nine sites, up to half of them hostile, with or without history."""
    count, seed = draw(st.integers(1, 5)), draw(st.integers(0, 10**6))
    vectors = [*around(CENTRE, SITES - count, 0.9, seed + 2), *hostile(draw(attacks), count, seed)]
    history = draw(st.sampled_from([History.empty(), usual_history(norm=9.0)]))
    return sketches(vectors), history


def decided(opened: dict[int, Sketch], history: History) -> Decision:
    known = references(CENTRE) if history.rounds else {}
    return decide(figures(opened, 100 * SITES, known), history, RULES, {})


def camps(decision: Decision) -> set[frozenset[int]]:
    return {frozenset(members_in(half.members)) for half in decision.halves}


@given(rounds(), st.permutations(range(SITES)))
def test_order_of_the_sites_does_not_matter(drawn: tuple[dict[int, Sketch], History], order: list[int]) -> None:
    """Sketches that arrive in another order give the same record, byte for byte."""
    opened, history = drawn
    known = references(CENTRE) if history.rounds else {}

    def recorded(arrived: dict[int, Sketch]) -> bytes:
        seen = figures(arrived, 100 * SITES, known)
        decision = decide(seen, history, RULES, {})
        return encode_record(Record(figures=seen, history=history, rules=RULES, unusable={}, decision=decision))

    assert recorded({m: opened[m] for m in order}) == recorded(opened)


@given(rounds(), st.lists(st.integers(0, 254), min_size=SITES, max_size=SITES, unique=True))
def test_names_of_the_sites_do_not_matter(drawn: tuple[dict[int, Sketch], History], names: list[int]) -> None:
    """Under other member indices every site meets the same fate, and a conflict has the same camps."""
    opened, history = drawn
    before = decided(opened, history)
    after = decided({names[m]: sketch for m, sketch in opened.items()}, history)
    assert after.weights == {names[m]: weight for m, weight in before.weights.items()}
    assert after.reasons == {names[m]: reason for m, reason in before.reasons.items()}
    assert camps(after) == {frozenset(names[m] for m in camp) for camp in camps(before)}


@given(rounds(), st.integers(2, 500))
def test_scale_of_the_updates_does_not_matter(drawn: tuple[dict[int, Sketch], History], factor: int) -> None:
    """If all updates, and the norms that history knows, are some integer times as long, the decision is the same."""
    opened, history = drawn
    scaled = {m: replace(sketch, values=sketch.values * factor) for m, sketch in opened.items()}
    norm = None if history.norm is None else history.norm * factor
    before, after = decided(opened, history), decided(scaled, replace(history, norm=norm))
    assert (after.weights, after.reasons, after.halves) == (before.weights, before.reasons, before.halves)
    assert (after.separation, after.scores) == (before.separation, before.scores)


@given(rounds())
def test_halves_are_never_small_and_share_all_survivors(drawn: tuple[dict[int, Sketch], History]) -> None:
    """A conflict's halves are disjoint, hold every accepted site, and at least three each; the lowest member is in the first."""
    decision = decided(*drawn)
    if decision.halves:
        first, second = (half.members for half in decision.halves)
        assert first & second == 0
        assert first | second == decision.included
        assert min(first.bit_count(), second.bit_count()) >= RULES.smallest_side
        assert first & -first < second & -second


@given(rounds())
def test_every_site_is_accepted_or_has_one_reason(drawn: tuple[dict[int, Sketch], History]) -> None:
    """Nobody is lost and nobody is both in and out; weights stay in their three bits."""
    decision = decided(*drawn)
    assert decision.weights.keys() | decision.reasons.keys() == drawn[0].keys()
    assert not decision.weights.keys() & decision.reasons.keys()
    assert all(1 <= weight <= RULES.full_weight for weight in decision.weights.values())


@given(rounds(), st.sampled_from([RoundOutcome.WHOLE, RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE]))
def test_record_and_the_history_after_it_survive(drawn: tuple[dict[int, Sketch], History], outcome: RoundOutcome) -> None:
    """Any round's record reads back, follows from its figures, and the next round's record can hold the history it leaves."""
    opened, history = drawn
    for _ in range(2):
        seen = figures(opened, 100 * SITES, references(CENTRE) if history.rounds else {})
        decision = decide(seen, history, RULES, {})
        record = Record(figures=seen, history=history, rules=RULES, unusable={}, decision=decision)
        assert decode_record(encode_record(record)) == record
        assert check_record(record) == []
        history = next_history(history, seen, decision, outcome if decision.halves else RoundOutcome.WHOLE)


RECORDED = encode_record(
    Record(
        figures=figures(sketches(around(CENTRE, 4, 1.0, 3)), 400, references(CENTRE)),
        history=usual_history(norm=4.0),
        rules=RULES,
        unusable={},
        decision=decide(
            figures(sketches(around(CENTRE, 4, 1.0, 3)), 400, references(CENTRE)), usual_history(norm=4.0), RULES, {}
        ),
    )
)


def decoded_or_none(data: bytes) -> Record | None:
    """The record of `data`, or None where it is refused with the one error that may be raised."""
    try:
        return decode_record(data)
    except ObjectCorrupt:
        return None


@given(
    st.integers(0, len(RECORDED)), st.integers(0, 6), st.one_of(st.binary(max_size=6), st.from_regex(rb"[0-9\-,:\[\]{}]{0,6}"))
)
def test_altered_bytes_are_refused_or_another_record(start: int, length: int, new: bytes) -> None:
    """Altered bytes are refused with one error, or are the one spelling of another record."""
    data = RECORDED[:start] + new + RECORDED[start + length :]
    found = decoded_or_none(data)
    assert found is None or encode_record(found) == data


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda t: st.lists(t) | st.dictionaries(st.text(max_size=3), t),
    )
)
def test_any_other_tree_is_refused(tree: object) -> None:
    """JSON that is no record raises the one error that may be raised."""
    import json

    assert decoded_or_none(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()) is None


@pytest.mark.parametrize("dispersion", [0.3, 0.6, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("sites", [3, 5, 10, 20])
def test_no_honest_site_is_left_out(dispersion: float, sites: int) -> None:
    """Over rounds of honest sites, alike or not, with norms up to a factor of three apart, nobody is left out and none clash."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        scales = rng.uniform(0.6, 1.8, size=sites)
        history, drift, recent = History.empty(), 0 * CENTRE, 0 * CENTRE
        for number in range(6):
            turning = CENTRE + 0.6 * direction(100 * seed + number)
            vectors = [s * v for s, v in zip(scales, around(turning, sites, dispersion, 1000 * seed + number), strict=True)]
            seen = figures(sketches(vectors), 100 * sites, references(recent, drift))
            decision = decide(seen, history, RULES, {})
            assert decision.included == mask_of(range(sites))
            assert decision.halves == ()
            history = next_history(history, seen, decision, RoundOutcome.WHOLE)
            mean = sum(vectors) / sites
            recent, drift = mean if number == 0 else 0.8 * recent + 0.2 * mean, drift + mean
        assert history.reputation == {}
        assert history.norm is not None
        assert history.norm > ONE


@given(rounds(), st.sets(st.integers(0, SITES - 1), min_size=1))
def test_a_conviction_changes_nothing_for_the_others(drawn: tuple[dict[int, Sketch], History], guilty: set[int]) -> None:
    """Without those that an audit convicts, every other site has the weight, the reason and the half it had."""
    opened, history = drawn
    seen = figures(opened, 100 * SITES, references(CENTRE) if history.rounds else {})
    before = decide(seen, history, RULES, {})
    after = decide(seen, history, RULES, dict.fromkeys(guilty, ExclusionReason.GARBAGE))
    assert after.weights == {m: weight for m, weight in before.weights.items() if m not in guilty}
    assert after.reasons == {**before.reasons, **dict.fromkeys(guilty, ExclusionReason.GARBAGE)}
    assert [half.members for half in after.halves] == [half.members & ~mask_of(guilty) for half in before.halves]
