"""How long to pause between two looks at something that nobody announces. Nothing else."""

from __future__ import annotations

FASTEST_S = 0.05
# A look costs a request to a busy server; a pause of a tenth of the wait so far delays no answer by more than a tenth.
_SHARE = 0.1


def pause_s(waited_s: float, *, slowest_s: float) -> float:
    """Seconds to sleep before the next look: short at first, then a tenth of the wait so far, at most `slowest_s`."""
    return min(slowest_s, max(FASTEST_S, _SHARE * waited_s))
