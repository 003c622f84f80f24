"""How long a phase without work takes between processes: Flower's own commands beside ours.

    python benchmarks/deployment_latency.py              prints the table
    python benchmarks/deployment_latency.py --write      puts it into docs/benchmarks.md

A SuperLink, three SuperNodes and an executor beside each, on this machine, without TLS. In a phase the driver asks every site and
waits for all replies. Linux only: CPU seconds are read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deployment import QUICK_SUPERNODE, STOCK_EXECUTOR, STOCK_SUPERNODE, WARM_EXECUTOR, Deployment, deployed, wait_for
from document import table, write_between_markers

SITES = 3
# What a site that trains imports: torch, TenSEAL, web3 and the lesion application.
IMPORTS = "bahefl_flwr.client"
_APP = Path(__file__).parent / "latency_app"
_DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Which commands run, how the driver waits, and what a site imports before it answers."""

    name: str
    executor: Sequence[str]
    supernode: Sequence[str]
    waiting: str
    imports: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Wall seconds of every phase, and CPU seconds of all processes per phase."""

    setup: Setup
    seconds: Sequence[float]
    cpu_s: float

    @property
    def median_s(self) -> float:
        """Of the phases after the first, which waits for SuperNodes at rest."""
        return statistics.median(self.seconds[1:])


def setups(imports: str) -> Iterator[Setup]:
    """Each measured once; the first is what the others are compared with."""
    yield Setup(
        name="flower-superexec, flower-supernode", executor=STOCK_EXECUTOR, supernode=STOCK_SUPERNODE, waiting="flower",
        imports=imports,
    )  # fmt: skip
    yield Setup(
        name="bahefl-executor, flower-supernode", executor=WARM_EXECUTOR, supernode=STOCK_SUPERNODE, waiting="bahefl",
        imports=imports,
    )  # fmt: skip
    yield Setup(
        name="bahefl-executor, bahefl-supernode", executor=WARM_EXECUTOR, supernode=QUICK_SUPERNODE, waiting="bahefl",
        imports=imports,
    )  # fmt: skip


def measure(setup: Setup, phases: int) -> Measured:
    """One run of so many phases on processes of its own. The first phase waits for nodes at rest and is not counted."""
    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(Path(folder), SITES, executor=setup.executor, supernode=setup.supernode) as processes,
    ):
        first, rest = Path(folder) / "first", Path(folder) / "rest"
        config = {"sites": SITES, "waiting": setup.waiting, "imports": setup.imports}
        processes.run(_APP, {**config, "phases": 1, "result": str(first)})
        wait_for(first, _TIMEOUT_S)
        before = _cpu_s(processes)
        processes.run(_APP, {**config, "phases": phases + 1, "result": str(rest)})
        wait_for(rest, _TIMEOUT_S)
        cpu_s = _cpu_s(processes) - before
        return Measured(setup=setup, seconds=json.loads(rest.read_text()), cpu_s=cpu_s / (phases + 1))


def _cpu_s(processes: Deployment) -> float:
    """Of all processes, with their children as far as those have ended and been waited for."""
    pids = [process.pid for process in (processes.superlink, *processes.supernodes, *processes.executors)]
    return sum(_with_children(pid) for pid in pids)


def _with_children(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(int(field) for field in fields[11:15]) / _TICKS + sum(_with_children(int(child)) for child in children)


def document(measured: Sequence[Measured], loads: Sequence[float]) -> str:
    """The Markdown between the markers."""
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        f"load {loads[0]:.1f} before and {loads[1]:.1f} after; {datetime.now(UTC):%Y-%m-%d}."
    )
    phases = len(measured[0].seconds) - 1
    rows = [_row(one, next(other for other in measured if other.setup.imports == one.setup.imports)) for one in measured]
    head = ["a site imports", "commands", "phase, s", "slowest, s", "stock takes, times", "CPU s per phase", "stock takes, times"]
    return f"{SITES} sites, medians of {phases} phases. {machine}\n\n{table(head, rows)}"


def _row(one: Measured, stock: Measured) -> list[str]:
    return [
        one.setup.imports or "nothing",
        one.setup.name,
        f"{one.median_s:.2f}",
        f"{max(one.seconds[1:]):.2f}",
        f"{stock.median_s / one.median_s:.1f}",
        f"{one.cpu_s:.2f}",
        f"{stock.cpu_s / one.cpu_s:.1f}",
    ]


def main(arguments: Sequence[str]) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", type=int, default=8)
    parser.add_argument("--imports", nargs="*", default=["", IMPORTS], help="what sites import; '' for nothing")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    measured = []
    for setup in (setup for imports in options.imports for setup in setups(imports)):
        measured.append(measure(setup, options.phases))
        print(setup.name, setup.imports, [round(s, 2) for s in measured[-1].seconds], round(measured[-1].cpu_s, 2), flush=True)
    text = document(measured, (before, os.getloadavg()[0]))
    print(text)
    if options.write:
        write_between_markers(_DOCUMENT, "latency", text)


if __name__ == "__main__":
    main(sys.argv[1:])
