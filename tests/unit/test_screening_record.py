"""The screening record: one spelling, strict reading, and a decision that must follow from the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.records import ExclusionReason, mask_of
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.figures import figures
from bahefl_flwr.screening.fixed_point import ONE
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import MAX_RECORD_BYTES, Record, check_record, decode_record, encode_record
from bahefl_flwr.screening.summary import summary
from screening_rounds import RULES, around, direction, references, sketches, usual_history

CENTRE = direction(1)


def recorded(*, conflict: bool = False) -> Record:
    """A round with sites left out for several reasons; half of the sites in another camp if asked for."""
    camps = [*around(CENTRE, 6, 0.7, seed=2), *around(direction(3) if conflict else CENTRE, 6, 0.7, seed=4)]
    history = replace(usual_history(norm=12.0), reputation={3: 77, 11: ONE // 2}, garbage=mask_of([5]))
    opened = sketches([*camps, 0 * CENTRE])
    opened[7] = replace(opened[7], in_range=False)
    seen = figures(opened, 1300, references(CENTRE + direction(3)))
    unusable = {20: ExclusionReason.MISSING, 0: ExclusionReason.CORRUPT}
    return Record(figures=seen, history=history, rules=RULES, unusable=unusable, decision=decide(seen, history, RULES, unusable))


def first_round() -> Record:
    seen = figures(sketches(around(CENTRE, 4, 1.0, seed=2)), 400, {})
    return Record(
        figures=seen, history=History.empty(), rules=RULES, unusable={}, decision=decide(seen, History.empty(), RULES, {})
    )


@pytest.mark.parametrize("record", [recorded(), recorded(conflict=True), first_round()])
def test_record_reads_back_as_itself(record: Record) -> None:
    """Everything the decision follows from survives, and so it can be recomputed from the record alone."""
    read = decode_record(encode_record(record))
    assert read == record
    assert check_record(read) == []


def test_record_of_a_conflict_names_both_halves() -> None:
    """The example of these tests is a conflict with every kind of reason: what they claim is not empty."""
    record = recorded(conflict=True)
    assert len(record.decision.halves) == 2
    assert set(record.decision.reasons.values()) >= {
        ExclusionReason.MISSING,
        ExclusionReason.CORRUPT,
        ExclusionReason.GARBAGE,
        ExclusionReason.OUT_OF_RANGE,
        ExclusionReason.ZERO,
    }


def test_equal_records_have_equal_bytes() -> None:
    """Neither the order in which sites were handed over nor that of any mapping shows in the bytes."""
    record = recorded()
    shuffled = replace(
        record,
        unusable=dict(reversed(record.unusable.items())),
        history=replace(record.history, reputation=dict(reversed(record.history.reputation.items()))),
        decision=replace(record.decision, weights=dict(reversed(record.decision.weights.items()))),
    )
    assert encode_record(shuffled) == encode_record(record)


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    tree = json.loads(encode_record(recorded(conflict=True)))
    change(tree)
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one entry of the tree."""

    def change(tree: Any) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value

    return change


ALTERATIONS = {
    "another version": put("v", value=2),
    "a version that is true": put("v", value=True),
    "an extra key": put("more", value=1),
    "an extra key in a part": put("figures", "more", value=1),
    "a missing key": lambda tree: tree.pop("rules"),
    "a missing key of the history": lambda tree: tree["history"].pop("norm"),
    "figures that are no object": put("figures", value=[]),
    "members out of order": lambda tree: tree["figures"]["members"].reverse(),
    "a member twice": put("figures", "members", 1, value=0),
    "a member beyond 254": put("figures", "members", 12, value=255),
    "a negative norm": put("figures", "norms", 0, value=-1),
    "a norm beyond all": put("figures", "norms", 0, value=1 << 97),
    "a norm too few": lambda tree: tree["figures"]["norms"].pop(),
    "a norm too many": lambda tree: tree["figures"]["norms"].append(1),
    "a cosine above 1": put("figures", "cosines", 0, value=ONE + 1),
    "a cosine that is true": put("figures", "cosines", 0, value=True),
    "a cosine that is text": put("figures", "cosines", 0, value="1"),
    "a float": put("figures", "cosines", 0, value=0.5),
    "a stranger out of range": put("figures", "out_of_range", value=[7, 99]),
    "alignments of no one": put("figures", "alignments", value=[]),
    "an alignment too few": lambda tree: tree["figures"]["alignments"]["drift"].pop(),
    "a negative count of rounds": put("history", "rounds", value=-1),
    "a full reputation": put("history", "reputation", value=[[3, ONE]]),
    "a reputation twice": put("history", "reputation", value=[[3, 5], [3, 5]]),
    "a pair of three": put("history", "reputation", value=[[3, 5, 1]]),
    "a pair of one": put("history", "reputation", value=[[3]]),
    "an unknown policy": put("rules", "policy", value="all"),
    "no weight at all": put("rules", "full_weight", value=0),
    "a threshold that is null": put("rules", "split", value=None),
    "an unknown reason": put("unusable", value=[[20, 11]]),
    "a weight of 9": put("decision", "weights", 0, 1, value=9),
    "a weight of 0": put("decision", "weights", 0, 1, value=0),
    "a single half": lambda tree: tree["decision"]["halves"].pop(),
    "a half without prior": lambda tree: tree["decision"]["halves"][0].pop("prior"),
    "three halves": lambda tree: tree["decision"]["halves"].append(tree["decision"]["halves"][0]),
}


@pytest.mark.parametrize("change", ALTERATIONS.values(), ids=ALTERATIONS)
def test_altered_record_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Every entry has its type and its range, and no entry may be missing or added."""
    with pytest.raises(ObjectCorrupt):
        decode_record(altered(change))


def spelt(data: bytes) -> dict[str, bytes]:
    """Other spellings of the same record, and bytes that spell none."""
    return {
        "a key twice": data.replace(b'"v":1', b'"v":1,"v":1'),
        "spaces": data.replace(b":", b": ", 1),
        "keys out of order": b'{"v":1,' + data[1:-7] + b"}",
        "a float of the same value": data.replace(b'"v":1', b'"v":1.0'),
        "an exponent": data.replace(b'"v":1', b'"v":1e0'),
        "not a number": data.replace(b'"v":1', b'"v":NaN'),
        "minus zero": data.replace(b'"rounds":5', b'"rounds":-0'),
        "an escape": data.replace(b'"v"', b'"\\u0076"'),
        "no ASCII": data.replace(b"drift", "drïft".encode()),
        "a name in other letters": data.replace(b"drift", b"dr\\u00efft", 1),
        "nested beyond measure": b"[" * 100_000,
        "digits beyond measure": data.replace(b'"v":1', b'"v":' + b"1" * 10_000),
        "a newline": data + b"\n",
        "an end missing": data[:-1],
        "nothing": b"",
        "too much": data + b" " * MAX_RECORD_BYTES,
    }


@pytest.mark.parametrize("name", [name for name in spelt(b"") if name != "a name in other letters"])
def test_other_spelling_is_refused(name: str) -> None:
    """One record has one spelling; all others are refused with the one error callers expect."""
    data = encode_record(recorded())
    with pytest.raises(ObjectCorrupt):
        decode_record(spelt(data)[name])


def test_record_of_the_most_sites_fits() -> None:
    """255 sites fit into one part of a stored object."""
    rng_vectors = around(CENTRE, 255, 1.0, seed=8)
    seen = figures(sketches(rng_vectors), 25500, references(CENTRE))
    history = usual_history(norm=255.0)
    record = Record(figures=seen, history=history, rules=RULES, unusable={}, decision=decide(seen, history, RULES, {}))
    data = encode_record(record)
    assert len(data) < MAX_RECORD_BYTES // 2
    assert decode_record(data) == record


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("decision", "weights", 0, 1, value=1), "weights"),
        (put("decision", "reasons", 0, 1, value=9), "reasons"),
        (put("decision", "norm", value=5), "norm"),
        (put("decision", "scores", 0, 1, value=5), "scores"),
        (put("decision", "separation", value=5), "separation"),
        (put("decision", "threshold", value=5), "threshold"),
        (put("decision", "halves", value=[]), "halves"),
    ],
)
def test_decision_that_does_not_follow_is_told(change: Callable[[dict[str, Any]], object], field: str) -> None:
    """A well-formed record with another decision than its figures give is read, and the difference is named."""
    differences = check_record(decode_record(altered(change)))
    assert [line.split()[0] for line in differences] == [field]


def test_another_history_changes_what_follows() -> None:
    """The decision depends on the history in the record: a garbage mark removed shows."""
    differences = check_record(decode_record(altered(put("history", "garbage", value=[]))))
    assert any(line.startswith("reasons") for line in differences)


def test_summary_is_plain_json() -> None:
    """The figures for the report are finite numbers, text and lists, by site."""
    record = recorded(conflict=True)
    told = summary(record)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["reasons"]["7"] == "OUT_OF_RANGE"
    assert told["norms"]["1"] == pytest.approx(1, abs=0.2)
    assert [half["members"] for half in told["halves"]] == [[1, 2, 3, 4], [6, 8, 9, 10, 11]]
    assert all(int(a) < int(b) for a, b in pairwise(told["cosines"]))


def test_summary_of_a_first_round_has_no_alignments() -> None:
    """Absent figures are empty or null, never invented."""
    record = first_round()
    told = summary(record)
    assert (told["alignments"], told["separation"], told["halves"]) == ({}, None, [])
    assert told["limits"]["alignment"] is None


def test_a_summary_tells_what_the_rules_compared_with() -> None:
    """By these limits a reader of the report comes to the verdicts: as multiples of the usual norm, and as an alignment."""
    record = recorded()
    told = summary(record)
    limits = told["limits"]
    assert (limits["clipped"], limits["oversized"]) == (RULES.clip_norm / ONE, RULES.largest_norm / ONE)
    short = {m for m, norm in told["norms"].items() if norm < limits["zero"]}
    assert {m for m, reason in told["reasons"].items() if reason == "ZERO"} == short - {"7"} == {"12"}
    assert -1 <= limits["alignment"] <= -0.06
