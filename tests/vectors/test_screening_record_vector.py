"""Two rounds of screening on fixed whole numbers: every machine must write these very records."""

from __future__ import annotations

import hashlib
import random

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.records import RoundOutcome
from bahefl_flwr.screening.acceptance import next_history
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.figures import Sketch, figures
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import Record, encode_record
from bahefl_flwr.screening.rules import Rules

# Written out, so that another default in conf/ does not change the vector.
RULES = Rules(
    full_weight=8,
    zero_norm=52429,
    duplicate=2097,
    duplicate_share=52429,
    replay=1017119,
    undoing=-209715,
    undoing_common=0,
    largest_norm=4194304,
    clip_norm=2097152,
    split=314573,
    split_margin=125829,
    smallest_side=3,
    majority=681574,
    sure_majority=576717,
    sure_split=419430,
    clear_history=524288,
    policy="anchor",
)
FIRST = "7032fb29d59737d20bc2d2fc2cf9d5b516c22473bc682635b94986ef5b7117de"
SECOND = "bbb63ae17d185e1eafd7a0f65172ed7247e040997514293f141980759f02c7be"


def draw(rng: random.Random, centre: list[int]) -> NDArray[np.int64]:
    return np.array([c + rng.randint(-40, 40) for c in centre], dtype=np.int64).reshape(16, 3)


def test_records_of_two_rounds() -> None:
    """Camps of five and four sites beside a zero update, then one that undoes: integers in, the same bytes out."""
    rng = random.Random(7)
    one, other = ([rng.randint(-50, 50) for _ in range(48)] for _ in range(2))
    weights = [rng.randint(50, 150) for _ in range(10)]
    history, digests = History.empty(), []
    for outcome, known in (
        (RoundOutcome.FIRST, {}),
        (RoundOutcome.WHOLE, {"recent": np.array(one, dtype=np.int64).reshape(16, 3)}),
    ):
        vectors = [draw(rng, one if known or site % 2 == 0 else other) for site in range(10)]
        vectors[9] = -vectors[9] if known else 0 * vectors[9]
        sketches = {s: Sketch(values=v, weight=w, in_range=True) for s, (v, w) in enumerate(zip(vectors, weights, strict=True))}
        seen = figures(sketches, sum(weights), known)
        decision = decide(seen, history, RULES, {})
        record = Record(figures=seen, history=history, rules=RULES, unusable={}, decision=decision)
        digests.append(hashlib.sha256(encode_record(record)).hexdigest())
        history = next_history(history, seen, decision, outcome)
    assert digests == [FIRST, SECOND]
