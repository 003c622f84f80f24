"""Run many seeded schedules of the whole protocol in virtual time: `python tests/simulate.py --schedules 10000`.

A failure prints its seed, what was promised, and the schedule; `--seed N` runs it again and prints all of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from simulated.plan import plan
from simulated.schedule import Ended, run

_SHOWN = 60


def main() -> int:
    """Returns how many schedules broke a promise, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, help="run this one schedule and print it")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed)
    return _campaign(range(arguments.first, arguments.first + arguments.schedules), arguments.jobs)


def _replay(seed: int) -> int:
    ended = run(plan(seed))
    print(ended.plan, *ended.trace, ended.broken or "all promises kept", sep="\n")
    return bool(ended.broken)


def _campaign(seeds: range, jobs: int) -> int:
    started, totals, broken = time.monotonic(), Counter[str](), []
    with ProcessPoolExecutor(jobs) as pool:
        for ended in pool.map(_short, seeds, repeat(_SHOWN), chunksize=20):
            totals.update(
                {
                    "schedules": 1, ended.plan.kind: 1, "rounds finalised": ended.finalized, "rounds abandoned": ended.abandoned,
                    "messages executed": ended.messages, "drivers": ended.drivers, "virtual hours": int(ended.virtual_s),
                }
            )  # fmt: skip
            if totals["schedules"] % 100 == 0:
                print(f"{totals['schedules']} schedules, {len(broken)} broken, {time.monotonic() - started:.0f} s", flush=True)
            if ended.broken:
                broken.append(ended.plan.seed)
                print(f"seed {ended.plan.seed}: {ended.broken}", ended.plan, *ended.trace, sep="\n", flush=True)
    totals["virtual hours"] //= 3600
    print(*(f"{name}: {count}" for name, count in totals.items()), f"seconds: {time.monotonic() - started:.0f}", sep="\n")
    print(f"broken: {len(broken)} {broken[:20]}")
    return min(100, len(broken))


def _short(seed: int, shown: int) -> Ended:
    ended = run(plan(seed))
    ended.trace = ended.trace[-shown:] if ended.broken else []
    return ended


if __name__ == "__main__":
    sys.exit(main())
