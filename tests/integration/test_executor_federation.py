"""A real SuperLink and SuperNode with bahefl-executor beside each: tasks run, and nobody is left when one of them is killed."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmarks' module that starts processes."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("deployment")


def descendants(pid: int) -> Iterator[int]:
    """Process ids of all children, and theirs."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [pid for pid, stat in states.items() if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_is_carried_out_by_forked_tasks(deployment: ModuleType, tmp_path: Path) -> None:
    """With a secret that the SuperLink and the SuperNode ask for; then the executor is killed, and what it started ends too."""
    secret = tmp_path / "secret"
    secret.write_text(os.urandom(32).hex())
    # Flower's own modules only: loading all of ours is another test's business.
    executor = (*deployment.WARM_EXECUTOR, "--preload", "", "--superexec-auth-secret-file", str(secret))
    with deployment.deployed(tmp_path, 1, executor=executor, supernode=deployment.QUICK_SUPERNODE, secret=secret) as processes:
        processes.run(
            BENCHMARKS / "latency_app", {"sites": 1, "phases": 2, "waiting": "bahefl", "result": str(tmp_path / "done")}
        )
        deployment.wait_for(tmp_path / "done", 300)
        assert len(json.loads((tmp_path / "done").read_text())) == 2
        ended = re.findall(r"\((flwr-\w+)\), process \d+, ended with exit code 0", processes.log("executor-1"))
        assert ended[0] == "flwr-clientapp"
        site = processes.executors[1]
        others = list(descendants(site.pid))
        assert others
        os.kill(site.pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while alive(others) and time.monotonic() < until:
            time.sleep(0.2)
        assert not alive(others)
