"""One schedule from its seed to its end: the real driver, `next_step`, ClientApp and site code against the simulated rest."""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from bahefl_flwr.driver import Driver
from bahefl_flwr.federation import contract_config
from bahefl_flwr.records import LedgerView, ObjectKind, RoundRecord
from bahefl_flwr.replies import request_config
from bahefl_flwr.settings import Settings, compose, from_run_config
from bahefl_flwr.site import secure_client_app, state
from bahefl_flwr.steps import Action
from bahefl_flwr.store.manifest import Manifest
from simulated.account import Account
from simulated.clock import START_S, VirtualTime
from simulated.interference import in_place_of_the_world
from simulated.ledger import Chain, TimedModel
from simulated.network import NODE, Network
from simulated.plan import Plan
from simulated.promises import PromiseBroken, Promises
from simulated.site import Fuse, KnownUpdates, SimulatedSite, anchor, identity
from simulated.store import Shelf, SiteStore

_LONGEST_S = 4 * 3600
_SETTLING_S = 130
_WINDOWS = ("commit_window_s=40", "aggregate_window_s=30", "verify_window_s=30", "open_grace_s=5", "ceremony_window_s=30")
_MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Ended:
    """What came of a schedule: how often its driver was started, and everything that happened, in order."""

    plan: Plan
    finalized: int = 0
    abandoned: int = 0
    messages: int = 0
    drivers: int = 0
    virtual_s: float = 0.0
    broken: str = ""
    trace: list[str] = field(default_factory=list)


class DriverKilled(BaseException):
    """The driver's process is gone."""


@lru_cache
def settings(sites: int, screened: bool) -> Settings:
    """Settings of a run."""
    changed = {"federation.sites": sites, "screening.kind": "sketch" if screened else "off"}
    return from_run_config({**_composed(), **changed})


@lru_cache
def _composed() -> dict[str, Any]:
    windows = (f"ledger.{window}" for window in _WINDOWS)
    return dict(
        compose(["federation.min_sites=2", "he.update_range=0.25", "he.committee=4", "screening.groups=16", *windows]).flat()
    )


def run(plan: Plan, *, model: type[TimedModel] = TimedModel) -> Ended:
    """Run a schedule; what it breaks, if anything, is in `Ended.broken`."""
    ended = Ended(plan=plan)
    folder = Path(tempfile.mkdtemp(prefix="bahefl-schedule-", dir=_MEMORY if _MEMORY.is_dir() else None))
    logging.disable(logging.CRITICAL)
    try:
        World(plan, folder, ended, model).run()
    except PromiseBroken as broken:
        ended.broken = str(broken)
    except Exception as error:  # noqa: BLE001  # whatever escapes ends a run that should not have ended
        ended.broken = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder, ignore_errors=True)
    return ended


class World:
    """Everything of one schedule."""

    def __init__(self, plan: Plan, folder: Path, ended: Ended, model: type[TimedModel]) -> None:
        self.plan, self.ended = plan, ended
        self.clock, self.rng = VirtualTime(), random.Random(f"schedule {plan.seed}")
        self.settings = settings(plan.sites, plan.screened)
        everybody = range(plan.sites)
        self.chain = Chain(
            contract_config(self.settings), self.clock, self.rng, addresses=[identity(i).address for i in everybody],
            sealing_keys=[identity(i).sealing_public for i in everybody], anchors=[anchor(i) for i in everybody],
            weights=[10 + i for i in everybody], model=model,
        )  # fmt: skip
        self.shelf = Shelf(self._put, self._altered)
        honest = [i for i in everybody if i not in plan.misdeeds and i != plan.garbage]
        self.promises = Promises(self.chain, self.shelf, honest, self.settings)
        app = secure_client_app(self._client)
        self.sites = [self._site(i, folder, app) for i in everybody]
        self.current: SimulatedSite | None = None
        self.kill_driver_at = float("inf")
        self.network = Network(
            plan, self.clock, self.rng, self.sites, execute=self._execute, view=self.chain.view, note=self.note,
            trouble=self.trouble,
        )  # fmt: skip
        self.reported: list[int] = []

    # ---- the course of a schedule

    def run(self) -> None:
        """From the first greeting to the last evaluation."""
        with in_place_of_the_world(self, _DriverTime(self)):
            self._start()
            while not self._driver_lives():
                self.clock.run_until(self.clock.now + self.rng.uniform(0.5, 30))
            self._finish()

    def _start(self) -> None:
        chain = self.chain
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        chain.run, chain.params = bytes(31) + b"\1", state.task_params(self.settings).digest()
        for site in self.sites:
            reply = site.execute(self._message(Action.HELLO, site))
            chain.initial = bytes.fromhex(str(reply.content["status"]["model"]))
        chain.transact(lambda: chain.model.start_task(0, self.plan.rounds, screened=self.plan.screened))
        self._plan_store_faults()
        self.clock.at(START_S + self.plan.end_s, self._calm_down)

    def _driver_lives(self) -> bool:
        """Whether this driver ended the task; a killed one did not."""
        self.ended.drivers += 1
        self._arm()
        self.promises.driver_starts()
        ledger: Any = Account(self.chain, _DriverGate(self))
        try:
            Driver(
                ledger, self.network, {i: NODE + i for i in range(self.plan.sites)}, client_config=self._client_config,
                on_replies=lambda *_: None, on_round_end=self._round_ended, screened=self.plan.screened,
                reported=len(self.reported),
            ).run()  # fmt: skip
        except DriverKilled:
            self.note("DRIVER KILLED")
            return False
        self.promises.reported(self.reported)
        return True

    def _finish(self) -> None:
        self.kill_driver_at = float("inf")
        quiet_from = START_S + self.plan.end_s + _SETTLING_S
        self.promises.ended(quiet_from)
        self.clock.run_until(max(self.clock.now, START_S + self.plan.end_s) + _SETTLING_S)
        found = {}
        for site in self.sites:
            reply = self._execute(site, self._message(Action.EVALUATE, site), self.chain.view())
            status = reply.content.get("status") if reply.has_content() else None
            found[site.index] = str(status.get("model", "")) if status else ""
            if status and not status["ok"]:
                self.note(f"site {site.index} does not evaluate: {status['message']}")
        self.promises.models(found, all_of_them=not self.plan.damage)
        self.ended.finalized = len(self.chain.finalized)
        self.ended.abandoned = len(self.chain.rounds) - len(self.chain.finalized)
        self.ended.virtual_s = self.clock.now - START_S

    # ---- faults

    def trouble(self) -> bool:
        """Whether anything may still go wrong."""
        return self.clock.now < START_S + self.plan.end_s

    def _arm(self) -> None:
        mean = self.plan.driver_kill
        at = self.clock.now + self.rng.expovariate(1 / mean) if mean else float("inf")
        self.kill_driver_at = at if at < START_S + self.plan.end_s else float("inf")

    def _calm_down(self) -> None:
        """Whoever hangs or is down is started again."""
        self.note("from now on nothing goes wrong")
        for site in self.sites:
            site.free_at = site.down_until = self.clock.now
            site.life += 1

    def _plan_store_faults(self) -> None:
        rng, end = self.rng, self.plan.end_s
        for _ in range(self.plan.damage):
            which, how = rng.randrange(1 << 30), rng.choice(("lose", "flip"))
            self.clock.at(
                START_S + rng.uniform(0, end), lambda w=which, h=how: self.note(f"store: {h} {self.shelf.damage(w, h)}")
            )  # type: ignore[misc]
        for _ in range(self.plan.outage):
            begin, length = START_S + rng.uniform(0, end), rng.uniform(1, 25)
            self.clock.at(begin, lambda b=begin, n=length: setattr(self.shelf, "down_until", b + n))  # type: ignore[misc]

    def misbehaves(self, misdeed: str) -> bool:
        site = self.current
        return site is not None and misdeed in self.plan.misdeeds.get(site.index, ()) and self.rng.random() < 0.7

    # ---- what stands between the code and the world

    def note(self, line: str) -> None:
        """For whoever reads the trace of a failure."""
        self.ended.trace.append(f"{self.clock.now - START_S:8.2f} {line}")

    def driver_point(self) -> None:
        """The driver may be killed here."""
        self.promises.time_passes()
        if self.clock.now - START_S > _LONGEST_S:
            raise PromiseBroken(f"P4: the run has not ended in {_LONGEST_S} s")
        if self.clock.now >= self.kill_driver_at:
            raise DriverKilled

    def _site(self, i: int, folder: Path, app: Any) -> SimulatedSite:
        fuse = Fuse(self.rng, self.note)
        return SimulatedSite(i, folder / str(i), app, self.settings, Account(self.chain, fuse, i), fuse)

    def _client(self, context: Any) -> KnownUpdates:
        i = int(context.node_config["partition-id"])
        return KnownUpdates(i, backwards=self.plan.halves and i < 3)

    def _client_config(self, view: LedgerView, action: Action, member: int) -> dict[str, int]:
        return {"server-round": view.finalized_count + 1, "rounds": view.task.rounds}

    def _round_ended(self, r: RoundRecord) -> None:
        self.note(f"round {r.number} ended: {r.phase.name} {r.abort_reason}")
        self.reported.append(r.number)

    def _message(self, action: Action, site: SimulatedSite) -> Message:
        config = request_config({"part": "validation"}, run=self.chain.run, number=1, last_try=True)
        content = RecordDict({"config": ConfigRecord(dict(config))})
        return Message(content, dst_node_id=NODE + site.index, message_type=action.value)

    def _execute(self, site: SimulatedSite, message: Message, view: LedgerView) -> Message:
        self.ended.messages += 1
        self.current, site.account.lagging = site, view
        try:
            return site.execute(message)
        finally:
            self.current, site.account.lagging = None, None
            site.fuse.quench()

    @contextmanager
    def open_site(self, context: Any, *_: object) -> Iterator[Any]:
        site = self.sites[int(context.node_config["partition-id"])]
        with site.open(SiteStore(self.shelf, site.fuse, self.clock.now)) as opened:
            yield opened

    def _put(self, manifest: Manifest) -> None:
        self.promises.put(manifest)

    def _altered(self, manifest: Manifest, data: bytes) -> bytes:
        hostile = manifest.kind is ObjectKind.UPDATE and self.misbehaves("bytes")
        return data[:-1] + bytes([data[-1] ^ 1]) if hostile else data


class _DriverTime:
    """The module `time` as the driver has it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._world.clock.sleep(seconds)
        self._world.driver_point()


class _DriverGate:
    """The driver's transactions take a moment, in which others act; and it may be killed before it knows."""

    def __init__(self, world: World) -> None:
        self._world = world

    def before(self, what: str) -> None:
        world = self._world
        world.clock.run_until(world.clock.now + world.rng.uniform(0, 1.5))
        world.driver_point()

    def after(self, what: str) -> None:
        self._world.note(f"driver: {what}")
        self._world.driver_point()
