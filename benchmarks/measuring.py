"""CPU seconds, peak memory and their medians, for the benchmarks of this folder.

Standard library only: peers' environments run it too.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Figures = dict[str, float]


@contextmanager
def cpu_seconds(figures: Figures, name: str) -> Iterator[None]:
    """Add the CPU seconds of the body, all threads, to `figures[name]`."""
    started = time.process_time()
    yield
    figures[name] = figures.get(name, 0.0) + time.process_time() - started


def repeated(measure: Callable[[], Figures], times: int) -> Figures:
    """Median of each figure over several calls, after one that does not count: it builds tables and fills caches."""
    measure()
    return medians([measure() for _ in range(times)])


def medians(runs: Sequence[Mapping[str, float]]) -> Figures:
    """Median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def peak_mb() -> float:
    """Most memory this process ever had resident, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def report(figures: Mapping[str, float | str], path: Path) -> None:
    """Write the figures where the parent process reads them: TenSEAL prints warnings on standard output."""
    path.write_text(json.dumps(figures))
