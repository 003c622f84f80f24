"""Reading JSON that somebody else wrote, without letting it end the process. What the values mean is the caller's business."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

MOST_NESTED: Final = 16
_OPENING: Final = np.frombuffer(b"[{", np.uint8)
_CLOSING: Final = np.frombuffer(b"]}", np.uint8)


def read_json(data: bytes, **hooks: Any) -> Any:
    """As json.loads of UTF-8 text, refusing what is nested deeper than anything of ours.

    The parser recurses in C. Where a library has raised the interpreter's recursion limit, as py-evm does, deep nesting overflows
    the stack and kills the process before any RecursionError is raised. Brackets inside strings count as nesting.

    Args:
      hooks: of json.loads.

    Raises:
      ValueError: not UTF-8, not JSON, or nested too deeply.
    """
    text = np.frombuffer(data, np.uint8)
    steps = np.isin(text, _OPENING).astype(np.int32) - np.isin(text, _CLOSING)
    if len(steps) and int(steps.cumsum(dtype=np.int64).max()) > MOST_NESTED:
        raise ValueError(f"JSON nested deeper than {MOST_NESTED}")
    return json.loads(data.decode("utf-8"), **hooks)
