"""kill -9 of every kind of process, in every phase of a round, in a federation of processes: no finalised round is lost.

Rows 1, 5 to 9 and 15 of the fault matrix with real processes. A supervisor (the script's) starts them again, as systemd would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.homes import load_administrator
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import LedgerView, RoundPhase
from federation_processes import ENVIRONMENT, ROOT, SCRIPT, free_ports

PHASES = (RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY, RoundPhase.VERIFIED)
ROUNDS = len(PHASES) + 1


class Killer:
    """Kills one kind of process once in each phase, each time in a later round."""

    def __init__(self, folder: Path, pids: Callable[[Path, LedgerView], list[int]]) -> None:
        self.killed: list[tuple[int, RoundPhase]] = []
        self._folder, self._pids = folder, pids
        self._end = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Watch the ledger in a thread while the block runs."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _watch(self) -> None:
        ledger = None
        while not self._end.wait(0.2) and len(self.killed) < len(PHASES):
            # The ledger's own node is among those killed.
            with suppress(LedgerError, OSError):
                ledger = ledger or self._ledger()
                view = ledger.view() if ledger else None
                if view and view.round.number > len(self.killed) and view.round.phase is PHASES[len(self.killed)]:
                    self._kill(view)

    def _ledger(self) -> FederationLedger | None:
        administrator = self._folder / "administrator"
        home = load_administrator(administrator) if administrator.exists() else None
        if home is None:
            return None
        return FederationLedger.attach(Connection(home.ledger_url, home.chain_id), home.contract)

    def _kill(self, view: LedgerView) -> None:
        time.sleep(0.5)
        pids = self._pids(self._folder, view)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if pids:
            self.killed.append((view.round.number, view.round.phase))


def pid_of(folder: Path, name: str) -> int:
    """The process that the script's supervisor started last under a name."""
    return int((folder / "pids" / name).read_text())


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def server_app(folder: Path, _: LedgerView) -> list[int]:
    """The driver, and with it whatever its executor runs."""
    return [grandchild for child in children(pid_of(folder, "executor")) for grandchild in (child, *children(child))]


def coordinator(folder: Path, view: LedgerView) -> list[int]:
    """The executor of the site that coordinates, with what it runs."""
    administrator = load_administrator(folder / "administrator")
    assert administrator
    ledger = FederationLedger.attach(Connection(administrator.ledger_url, administrator.chain_id), administrator.contract)
    address = ledger.members()[view.round.coordinator].address
    homes = [json.loads(path.read_text()) for path in sorted(folder.glob("site-*.json"))]
    site = next(i for i, home in enumerate(homes) if home["address"] == address)
    executor = pid_of(folder, f"executor-{site}")
    return [*children(executor), executor]


def named(name: str) -> Callable[[Path, LedgerView], list[int]]:
    """One process of the script's."""
    return lambda folder, _: [pid_of(folder, name)]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "pids",
    [
        pytest.param(server_app, id="server-app"),
        pytest.param(coordinator, id="coordinator"),
        pytest.param(named("superlink"), id="superlink"),
        pytest.param(named("supernode-1"), id="supernode"),
        pytest.param(named("store"), id="store"),
        pytest.param(named("ledger"), id="ledger"),
    ],
)
def test_a_run_outlives_what_is_killed_in_it(tmp_path: Path, pids: Callable[[Path, LedgerView], list[int]]) -> None:
    """Killed in each phase of a round: all rounds are finalised, each told once, all sites have one model, the audit holds."""
    killer = Killer(tmp_path, pids)
    environment = {**ENVIRONMENT, "PORT": str(free_ports(6))}
    with killer.at_work():
        command = [SCRIPT, tmp_path, "experiment=smoke", f"federation.rounds={ROUNDS}", "train.local_epochs=1"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout[-4000:] + done.stderr[-2000:]
    assert [phase for _, phase in killer.killed] == list(PHASES), said
    assert done.returncode == 0, said
    (run,) = (tmp_path / "runs").glob("2*-smoke")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    finalised = [line["round"] for line in lines if line["finalised"]]
    assert len(finalised) == len(set(finalised)) == ROUNDS
    assert all(len(line["included"]) >= 2 for line in lines if line["finalised"])
    models = [path.read_bytes() for path in tmp_path.glob("site-*/runs/*/model.safetensors")]
    assert len(models) == 3 and len(set(models)) == 1
    assert "every check holds" in done.stdout
