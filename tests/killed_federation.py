"""A federation of real processes in which some are killed with kill -9, on occasions that the ledger shows.

The documented script runs it, and its supervisor starts again what was killed, as systemd would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.homes import load_administrator
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, RoundPhase
from federation_processes import ENVIRONMENT, ROOT, SCRIPT, free_ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What can be seen of a federation: its folder, its ledger, and the ledger's present state."""

    folder: Path
    ledger: FederationLedger
    view: LedgerView

    def member(self, site: int) -> int:
        """The index under which the script's site has registered."""
        found = self.ledger.member(_addresses(self.folder)[site])
        assert found, f"site {site} has not registered"
        return found.index

    def site(self, member: int) -> int:
        """The script's number of a member."""
        return _addresses(self.folder).index(self.ledger.members()[member].address)


def _addresses(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["address"] for path in sorted(folder.glob("site-*.json"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """When to kill: once `seen`, and `after_s` seconds later."""

    name: str
    seen: Callable[[Sight], bool]
    after_s: float = 0.0


Victim = Callable[[Sight], list[int]]
"""From what is seen to the processes to kill; none if they are not there yet."""


class Killer:
    """Kills the victim once on each occasion, in their order."""

    def __init__(self, folder: Path, deeds: Sequence[tuple[Occasion, Victim]]) -> None:
        self.killed: list[str] = []
        self._folder, self._deeds = folder, deeds
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
        while not self._end.wait(0.1) and len(self.killed) < len(self._deeds):
            # The ledger's own node is among those killed; and a file that is half written is not there yet.
            with suppress(LedgerError, OSError, ValueError):
                ledger = ledger or ledger_of(self._folder)
                if ledger:
                    self._look(Sight(folder=self._folder, ledger=ledger, view=ledger.view()))

    def _look(self, sight: Sight) -> None:
        occasion, victim = self._deeds[len(self.killed)]
        if not occasion.seen(sight):
            return
        time.sleep(occasion.after_s)
        pids = victim(sight)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if pids:
            self.killed.append(occasion.name)


def ledger_of(folder: Path, url: str = "") -> FederationLedger | None:
    """The federation's contract, at the script's own node or at `url`; None before there is one."""
    administrator = folder / "administrator"
    home = load_administrator(administrator) if administrator.exists() else None
    return FederationLedger.attach(Connection(url or home.ledger_url, home.chain_id), home.contract) if home else None


# --- occasions --------------------------------------------------------------------------------------------------------


def in_round(number: int, phase: RoundPhase) -> Occasion:
    """A phase of that round, or of a later one; a little after it began, when its work goes on."""
    return Occasion(
        name=f"{phase.name} of round {number}",
        seen=lambda s: s.view.round.number >= number and s.view.round.phase is phase,
        after_s=0.5,
    )


def in_ceremony(phase: EpochPhase) -> Occasion:
    """A step of the key ceremony."""
    return Occasion(name=f"{phase.name} of the ceremony", seen=lambda s: s.view.epoch.phase is phase)


def between_reveal_and_publish(site: int) -> Occasion:
    """A site has revealed its seeds and is at work on its key parts, which are not on the ledger."""

    def seen(s: Sight) -> bool:
        if s.view.epoch.phase is not EpochPhase.PUBLISH:
            return False
        return not s.view.epoch.published >> s.member(site) & 1 and bool(tasks(s.folder, f"executor-{site}"))

    return Occasion(name=f"between REVEAL and PUBLISH of site {site}", seen=seen)


def in_final_evaluation(site: int | None = None) -> Occasion:
    """The task has come to its end, its last model is being evaluated: by that site, if one is named."""

    def seen(s: Sight) -> bool:
        over = not s.view.task.open and s.view.finalized_count == s.view.task.rounds > 0
        return over and (site is None or bool(tasks(s.folder, f"executor-{site}")))

    return Occasion(name="final evaluation", seen=seen)


# --- victims ----------------------------------------------------------------------------------------------------------


def pid_of(folder: Path, name: str) -> int:
    """The process that the script's supervisor started last under a name."""
    return int((folder / "pids" / name).read_text())


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def tasks(folder: Path, executor: str) -> list[int]:
    """What an executor has forked beside its manager, which is the first: ServerApps or ClientApps at work."""
    return children(pid_of(folder, executor))[1:]


def server_app(sight: Sight) -> list[int]:
    """The driver, and with it whatever its executor runs."""
    executor = pid_of(sight.folder, "executor")
    return [grandchild for child in children(executor) for grandchild in (child, *children(child))]


def coordinator(sight: Sight) -> list[int]:
    """The executor of the site that coordinates, with what it runs."""
    executor = pid_of(sight.folder, f"executor-{sight.site(sight.view.round.coordinator)}")
    return [*children(executor), executor]


def whole_site(number: int) -> Victim:
    """Everything that runs at a site: its SuperNode, its executor, its ClientApp."""

    def victim(sight: Sight) -> list[int]:
        executor = pid_of(sight.folder, f"executor-{number}")
        return [*children(executor), executor, pid_of(sight.folder, f"supernode-{number}")]

    return victim


def named(name: str) -> Victim:
    """One process of the script's."""
    return lambda sight: [pid_of(sight.folder, name)]


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A federation whose script has ended well."""

    folder: Path
    run: Path
    said: str

    def lines(self) -> list[dict[str, Any]]:
        """The rounds that the run tells of."""
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]

    def summary(self) -> dict[str, Any]:
        """How the run says that it ended."""
        found: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return found

    def models(self) -> list[Path]:
        """The newest model that each site keeps of each task, in the order of the sites."""
        return sorted(self.folder.glob("site-*/runs/*/model.safetensors"))


def federation_with_kills(
    folder: Path,
    deeds: Sequence[tuple[Occasion, Victim]],
    *overrides: str,
    project: Path = ROOT,
) -> Ended:
    """Run the script from nothing to the audit while these are killed; all of them must have been, and the script end with 0.

    Args:
      overrides: settings of the run. project: what `flwr run` runs.
    """
    killer = Killer(folder, deeds)
    environment = {**ENVIRONMENT, "PORT": str(free_ports(6)), "PROJECT": str(project)}
    with killer.at_work():
        done = subprocess.run(
            [SCRIPT, folder, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    said = done.stdout[-4000:] + done.stderr[-2000:]
    assert killer.killed == [occasion.name for occasion, _ in deeds], said
    assert done.returncode == 0, said
    (run,) = (path.parent for path in (folder / "runs").glob("2*/summary.json"))
    return Ended(folder=folder, run=run, said=done.stdout)
