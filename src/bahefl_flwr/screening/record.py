"""The screening record: all that a decision follows from, and the decision. The last part of a stored aggregate.

Canonical JSON, so that its digest on the ledger stands for one record only. Reading is strict: the bytes are untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from itertools import combinations
from typing import Any, Final

from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.records import ExclusionReason, mask_of, members_in
from bahefl_flwr.screening.canonical_json import (
    NotCanonical,
    ascending,
    decode,
    encode,
    fields,
    listed,
    optional_whole,
    whole,
)
from bahefl_flwr.screening.decision import Decision, Half, decide
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules

RECORD_VERSION: Final = 1
MAX_RECORD_BYTES: Final = 1 << 20
"""As much as one part of a stored object holds: 255 sites need a third of it."""

_SITES: Final = 255
_NAMES: Final = 8
_LARGEST_NORM: Final = 1 << 96
_LARGEST_COUNT: Final = 1 << 32
_POLICIES: Final = frozenset(("anchor", "hold"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the coordinator says it saw and did.

    Attributes:
      figures: of all screened sites. history: before this round. rules: of the run.
      unusable: as in `decide`.
    """

    figures: Figures
    history: History
    rules: Rules
    unusable: Mapping[int, ExclusionReason]
    decision: Decision


def encode_record(record: Record) -> bytes:
    """The one spelling of a record."""
    return encode(
        {
            "v": RECORD_VERSION,
            "figures": _figures_tree(record.figures),
            "history": _history_tree(record.history),
            "rules": asdict(record.rules),
            "unusable": _pairs_tree(record.unusable),
            "decision": _decision_tree(record.decision),
        }
    )


def decode_record(data: bytes) -> Record:
    """Inverse of `encode_record`, for untrusted bytes.

    Checks: (1) not longer than a record may be, (2) ASCII JSON without floats and without a key twice, (3) exactly our keys, each
    of its type, (4) every number in its range, every list of members ascending, (5) as many figures as members, (6) encoding it
    again gives the same bytes. Whether the decision follows from the figures is for `check_record`.

    Raises:
      ObjectCorrupt: naming the first check that failed.
    """
    if len(data) > MAX_RECORD_BYTES:  # 1
        raise ObjectCorrupt(f"a screening record of {len(data)} bytes: at most {MAX_RECORD_BYTES} are read; vote against it")
    try:
        record = _record(decode(data))
        if encode_record(record) != data:  # 6
            raise NotCanonical("it is not in its one canonical spelling")
    except NotCanonical as error:
        raise ObjectCorrupt(f"not a screening record: {error}; vote against the aggregate it came with") from error
    return record


def encode_history(history: History) -> bytes:
    """The one spelling of a history, for a site's own file."""
    return encode(_history_tree(history))


def decode_history(data: bytes) -> History:
    """Inverse of `encode_history`.

    Raises:
      ObjectCorrupt: the bytes are none.
    """
    try:
        return _history(decode(data))
    except NotCanonical as error:
        raise ObjectCorrupt(f"not a screening history: {error}; delete the file it is from") from error


def check_record(record: Record) -> list[str]:
    """Recompute the decision from the record's own figures, history and rules; one line per difference, none if it follows."""
    expected = decide(record.figures, record.history, record.rules, record.unusable)
    pairs = ((f.name, getattr(record.decision, f.name), getattr(expected, f.name)) for f in fields_of(Decision))
    return [
        f"{name} is recorded as {_shown(was)}, but follows as {_shown(should)}" for name, was, should in pairs if was != should
    ]


def _shown(value: object) -> str:
    return ", ".join(f"{k}: {int(v)}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _record(tree: Any) -> Record:
    top = fields(tree, ("v", "figures", "history", "rules", "unusable", "decision"))
    whole(top["v"], RECORD_VERSION, RECORD_VERSION)
    return Record(
        figures=_figures(top["figures"]),
        history=_history(top["history"]),
        rules=_rules(top["rules"]),
        unusable=_reasons(top["unusable"]),
        decision=_decision(top["decision"]),
    )


def _figures_tree(figures: Figures) -> dict[str, Any]:
    return {
        "members": list(figures.members),
        "out_of_range": [m for m, fits in zip(figures.members, figures.in_range, strict=True) if not fits],
        "norms": list(figures.norms),
        "cosines": [figures.cosines[i][j] for i, j in combinations(range(len(figures.members)), 2)],
        "alignments": {name: list(column) for name, column in figures.alignments.items()},
    }


def _figures(tree: Any) -> Figures:
    part = fields(tree, ("members", "out_of_range", "norms", "cosines", "alignments"))
    members = ascending(part["members"], _SITES)
    strangers = ascending(part["out_of_range"], _SITES)
    if not set(strangers) <= set(members):
        raise NotCanonical("a site is out of range that was not screened")
    return Figures(
        members=members,
        in_range=tuple(m not in strangers for m in members),
        norms=_column(part["norms"], len(members), 0, _LARGEST_NORM),
        cosines=_square(_column(part["cosines"], len(members) * (len(members) - 1) // 2, -ONE, ONE), len(members)),
        alignments=_alignments(part["alignments"], len(members)),
    )


def _column(value: Any, length: int, low: int, high: int) -> tuple[int, ...]:
    column = tuple(whole(item, low, high) for item in listed(value, length))
    if len(column) != length:
        raise NotCanonical(f"{len(column)} figures where {length} belong")
    return column


def _square(triangle: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    rows = [[ONE] * size for _ in range(size)]
    for (i, j), cosine in zip(combinations(range(size), 2), triangle, strict=True):
        rows[i][j] = rows[j][i] = cosine
    return tuple(map(tuple, rows))


def _alignments(value: Any, length: int) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict) or len(value) > _NAMES:
        raise NotCanonical(f"alignments are no object of at most {_NAMES} columns")
    return {name: _column(column, length, -ONE, ONE) for name, column in value.items()}


def _history_tree(history: History) -> dict[str, Any]:
    return {
        **{name: getattr(history, name) for name in ("norm", "alignment", "spread", "rounds")},
        "reputation": _pairs_tree(history.reputation),
        "garbage": list(members_in(history.garbage)),
    }


def _history(tree: Any) -> History:
    part = fields(tree, ("norm", "alignment", "spread", "reputation", "garbage", "rounds"))
    return History(
        norm=optional_whole(part["norm"], 0, _LARGEST_NORM),
        alignment=optional_whole(part["alignment"], 0, ONE),
        spread=optional_whole(part["spread"], -2 * ONE, 2 * ONE),
        reputation=_pairs(part["reputation"], 0, ONE - 1),
        garbage=mask_of(ascending(part["garbage"], _SITES)),
        rounds=whole(part["rounds"], 0, _LARGEST_COUNT),
    )


def _rules(tree: Any) -> Rules:
    part = fields(tree, [f.name for f in fields_of(Rules)])
    if part["policy"] not in _POLICIES:
        raise NotCanonical("the policy is neither anchor nor hold")
    numbers = {name: whole(value, -_LARGEST_COUNT, _LARGEST_COUNT) for name, value in part.items() if name != "policy"}
    whole(part["full_weight"], 1, 8)
    whole(part["smallest_side"], 1, _SITES)
    return Rules(policy=part["policy"], **numbers)


def _decision_tree(decision: Decision) -> dict[str, Any]:
    return {
        **{name: getattr(decision, name) for name in ("norm", "separation", "threshold")},
        **{name: _pairs_tree(getattr(decision, name)) for name in ("weights", "reasons", "scores")},
        "halves": [{**asdict(half), "members": list(members_in(half.members))} for half in decision.halves],
    }


def _decision(tree: Any) -> Decision:
    part = fields(tree, ("norm", "separation", "threshold", "weights", "reasons", "scores", "halves"))
    halves = listed(part["halves"], 2)
    if len(halves) == 1:
        raise NotCanonical("a conflict has two halves")
    return Decision(
        weights=_pairs(part["weights"], 1, 8),
        reasons=_reasons(part["reasons"]),
        norm=whole(part["norm"], 0, _LARGEST_NORM),
        scores=_pairs(part["scores"], -ONE, ONE),
        separation=optional_whole(part["separation"], -2 * ONE, 2 * ONE),
        threshold=whole(part["threshold"], 0, _LARGEST_COUNT),
        halves=tuple(map(_half, halves)),
    )


def _half(tree: Any) -> Half:
    part = fields(tree, [f.name for f in fields_of(Half)])
    return Half(
        members=mask_of(ascending(part["members"], _SITES)),
        prior=whole(part["prior"], -ONE, ONE),
        reputation=whole(part["reputation"], 0, ONE),
    )


def _pairs_tree(values: Mapping[int, int]) -> list[list[int]]:
    return [[member, int(value)] for member, value in sorted(values.items())]


def _pairs(value: Any, low: int, high: int) -> dict[int, int]:
    pairs = [listed(item, 2) for item in listed(value, _SITES)]
    if any(len(pair) != 2 for pair in pairs):
        raise NotCanonical("a pair is of a member and a number")
    members = ascending([pair[0] for pair in pairs], _SITES)
    return {member: whole(pair[1], low, high) for member, pair in zip(members, pairs, strict=True)}


def _reasons(value: Any) -> dict[int, ExclusionReason]:
    low, high = min(ExclusionReason), max(ExclusionReason)
    return {member: ExclusionReason(reason) for member, reason in _pairs(value, low, high).items()}
