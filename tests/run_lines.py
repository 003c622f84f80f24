"""Lines of `metrics.jsonl` for tests, as `round_log.round_line` writes them."""

from typing import Any


def line(number: int, *, score: float = 0.5, abandoned: str = "", **changes: Any) -> dict[str, Any]:
    """A finalised round of four sites, or an abandoned one."""
    validation = {"loss": 0.3, "dice": score, "recall": score, "precision": score, "score": score}
    return {
        "round": number,
        "finalised": not abandoned,
        "abandoned": abandoned,
        "attempt": 0,
        "coordinator": {"index": number % 4, "address": "0x" + "11" * 20},
        "committed": [0, 1, 2, 3],
        "included": [0, 1, 2, 3],
        "excluded": {},
        "pooled_over": {"train": {"sites": 4, "of": 4}, "validation": {"sites": 4, "of": 4}},
        "restarted": False,
        "elapsed": 10.0 * number,
        "train_loss": 0.5,
        "validation": {} if abandoned else validation,
        "seconds": {"train": 3.0, "encrypt": 0.5, "total": 3.5},
        "bytes": {"update": 2_800_000, "aggregate": 700_000},
        "gas": {"total": 1_234_567},
        "model_digest": "ab" * 32,
        **changes,
    }
