"""A whole secure run in one process: real ledger node, store, CKKS and apps; only Flower's transport is in-process.

The NumPyClient is a plain function of site and round, so that tests know every update in the clear.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from numpy.typing import NDArray

from bahefl_flwr import run_folder
from bahefl_flwr.federation import Federation, open_federation
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochRecord, LedgerView, Member, RoundRecord
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.site import secure_client_app
from bahefl_flwr.site.client_app import ClientFn
from bahefl_flwr.store import LocalStore
from bahefl_flwr.strategy import BaheflStrategy
from in_process_grid import InProcessGrid, Tamper, plain_delivery

Misbehaviour = Callable[[int, int], Mapping[str, Any] | None]
Arrays = list[NDArray[np.float32]]
Update = Callable[[int, int], Arrays]
SHAPES = ((40, 30), (7,), ())
SMALL = ("federation.sites=4", "federation.rounds=2", "federation.min_sites=2", "he.update_range=0.25")


class KnownClient(NumPyClient):
    """Moves the model by `update(site, round)`; `misbehave` may raise, or return further metrics.

    Its loss is the distance to where the common part of all updates leads, so that an update that helps lowers it.
    """

    def __init__(
        self, site: int, misbehave: Misbehaviour, update: Update | None = None, *, reversed_ballot: bool = False
    ) -> None:
        self.site, self.misbehave, self.reversed_ballot = site, misbehave, reversed_ballot
        self.update = update or known_update

    def get_parameters(self, config: dict[str, Any]) -> Arrays:
        return [np.full(shape, 0.5, np.float32) for shape in SHAPES]

    def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"num-examples": examples(self.site), "anchor": True}

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        number = int(config["server-round"])
        more = self.misbehave(self.site, number) or {}
        moved = [p + u for p, u in zip(parameters, self.update(self.site, number), strict=True)]
        return moved, examples(self.site), {"loss": 1.0 / number, **more}

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        hostile = self.reversed_ballot and config.get("part") == "ballot"
        return (-1 if hostile else 1) * distance(parameters), 10, {"score": 0.5}


def examples(site: int) -> int:
    """Every site has another weight."""
    return 10 * (site + 1)


def known_update(site: int, number: int) -> Arrays:
    """A part common to all, and noise of the site's own. Some values lie beyond the update range: clipping shows."""
    rng = np.random.default_rng([site, number])
    return [c + rng.normal(0, 0.05, c.shape).astype(np.float32) for c in common_update()]


def common_update() -> Arrays:
    """Where all honest updates lead."""
    rng = np.random.default_rng(0)
    return [np.asarray(rng.normal(0, 0.09, shape), np.float32) for shape in SHAPES]


def distance(parameters: Arrays) -> float:
    """How far a model is from where ten rounds of honest updates lead."""
    goal = [0.5 + 10 * u for u in common_update()]
    return float(np.sqrt(sum(np.square(g - p).sum() for g, p in zip(goal, parameters, strict=True))))


def well_behaved(site: int, number: int) -> None:
    """Raise nothing."""


@dataclass
class Run:
    """What a test may look at during and after a run."""

    settings: Settings
    folder: Path
    federation: Federation | None = None
    lines: list[Mapping[str, Any]] = field(default_factory=list)
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    view: LedgerView | None = None
    strategy: BaheflStrategy | None = None
    grid: InProcessGrid | None = None

    members: tuple[Member, ...] = ()
    epochs: dict[int, EpochRecord] = field(default_factory=dict)

    @property
    def ledger(self) -> FederationLedger:
        """The driver's client of the ledger; only while the run goes on."""
        assert self.federation
        return self.federation.ledger

    @property
    def store(self) -> LocalStore:
        """The run's store."""
        return LocalStore(self.folder / "store")

    @property
    def final_model(self) -> str:
        """Digest of the final model as the sites report it."""
        assert self.strategy
        return self.strategy.final_model

    def site_folder(self, site: int) -> Path:
        return self.folder / "sites" / f"{site:03d}"

    def address(self, site: int) -> str:
        """Ethereum address of a site, by partition id."""
        return Identity.load(self.site_folder(site) / "identity").address

    def key_seeds(self, site: int) -> set[bytes]:
        """The subset seeds in a site's key share of the first epoch: the part of the secret key it can derive."""
        data = (self.site_folder(site) / "epochs" / "00001" / "share.key").read_bytes()
        assert self.view
        held = 2**2 - 1  # C(4, 2) = 6 subsets, each site outside of 3
        return {data[len(data) - 32 * (k + 1) : len(data) - 32 * k] for k in range(held)}

    def stored(self, digest_cid: str) -> Path:
        """The file of a stored object."""
        return next(p for p in (self.folder / "store").rglob("*") if p.is_file() and digest_cid in p.name)


def flip_one_byte(path: Path, at: int = -1) -> None:
    """Exchange one byte of a file, whatever its permissions."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.chmod(0o600)
    path.write_bytes(data)


def federated_run(
    tmp_path: Path,
    *overrides: str,
    tamper: Callable[[Run], Tamper] | None = None,
    misbehave: Misbehaviour = well_behaved,
    update: Update = known_update,
    ballots_reversed: Collection[int] = (),
    nodes: int | None = None,
    strategy_options: Mapping[str, Any] | None = None,
    start_options: Mapping[str, Any] | None = None,
    wrap: Callable[[ClientFn], ClientFn] = lambda client_fn: client_fn,
    ledger_is_up: Callable[[Run], object] | None = None,
) -> Run:
    """Run the small federation to its end and return what is left of it.

    Args:
      update: what each site's training moves the model by, from (site, server round).
      ballots_reversed: sites that vote for the model that is worst for them.
      nodes: connected nodes where they are not as many as `federation.sites`.
      strategy_options, start_options: further arguments of BaheflStrategy, and of its start.
      ledger_is_up: called when it is, before any site acts.
      wrap: from the client function of KnownClient, or whatever stands for it, to the sites' own.
    """
    settings = compose([*SMALL, f"run.root={tmp_path}", *overrides])
    random.seed(0)

    def client_fn(context: Context) -> NumPyClient:
        site = int(context.node_config["partition-id"])
        return KnownClient(site, misbehave, update, reversed_ballot=site in ballots_reversed)

    app = secure_client_app(wrap(client_fn))
    grid = InProcessGrid(app, nodes or settings.federation.sites, settings.flat())
    folder = run_folder.create(tmp_path, settings.run.name, grid.run_id, settings.yaml())
    run = Run(settings=settings, folder=folder.path, grid=grid)
    grid._tamper = tamper(run) if tamper else plain_delivery
    try:
        with open_federation(settings, folder.path) as federation:
            run.federation = federation
            if ledger_is_up:
                ledger_is_up(run)
            run.strategy = BaheflStrategy(federation, on_round=run.lines.append, **(strategy_options or {}))
            run.strategy.start(grid=grid, **(start_options or {}))
            run.view = federation.ledger.view()
            run.members = federation.ledger.members()
            run.epochs = {n: federation.ledger.epoch(n) for n in range(1, run.view.epoch.epoch + 1)}
            run.rounds = {n: federation.ledger.round(n) for n in range(1, run.view.round.number + 1)}
    finally:
        grid.close()
    return run
