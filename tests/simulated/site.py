"""One simulated site: the real ClientApp, journal, files and keys; its process may be killed between any two effects."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from bahefl_flwr.errors import LedgerUnreachable
from bahefl_flwr.identity import Identity, Onion
from bahefl_flwr.journal import Journal
from bahefl_flwr.key_files import THROW_AWAY
from bahefl_flwr.settings import Settings
from bahefl_flwr.site.state import Site
from simulated.account import Account
from simulated.store import SiteStore

SHAPES = ((6, 5), (4,))
_LAYERS = 40


class Killed(BaseException):
    """The process is gone: nothing of ours catches it."""


class KnownUpdates(NumPyClient):
    """Moves the model by a part common to all, backwards where `backwards`; its loss is the distance to where that leads."""

    def __init__(self, site: int, *, backwards: bool) -> None:
        self.site, self.way = site, -1 if backwards else 1

    def get_parameters(self, config: dict[str, Any]) -> list[np.ndarray]:
        return [np.full(shape, 0.5, np.float32) for shape in SHAPES]

    def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
        return {"num-examples": 10 + self.site, "anchor": True}

    def fit(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        rng = np.random.default_rng([self.site, int(config["server-round"])])
        moved = [
            p + self.way * c + rng.normal(0, 0.07, c.shape).astype(np.float32) for p, c in zip(parameters, common(), strict=True)
        ]
        return [np.asarray(m, np.float32) for m in moved], 10 + self.site, {"loss": 1.0}

    def evaluate(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        way = 1 if config.get("part") == "anchor" else self.way  # the anchor data are the same everywhere
        goal = [0.5 + 10 * way * c for c in common()]
        return float(sum(np.square(g - p).sum() for g, p in zip(goal, parameters, strict=True))), 10, {"score": 0.5}


@lru_cache
def common() -> tuple[np.ndarray, ...]:
    """Where all honest updates lead."""
    rng = np.random.default_rng(0)
    return tuple(np.asarray(rng.normal(0, 0.15, shape), np.float32) for shape in SHAPES)


@lru_cache(maxsize=16)
def identity(i: int) -> Identity:
    """Site i's keys, the same in every schedule: making them costs more than a round."""
    rng = random.Random(f"identity {i}")
    made = Identity(
        Path(f"/identity-{i}"), ethereum=rng.randbytes(32), sealing=rng.randbytes(32), onion=Onion(rng.randbytes(32), _LAYERS),
        protection=THROW_AWAY,
    )  # fmt: skip
    assert made.address
    return made


@lru_cache(maxsize=16)
def anchor(i: int) -> bytes:
    """The tip of site i's onion."""
    return identity(i).onion.tip


class Fuse:
    """Kills a site's process at the n-th of the points it passes, and loses answers of its ledger node. A `Gate`."""

    def __init__(self, rng: random.Random, note: Callable[[str], None]) -> None:
        self._rng, self._note = rng, note
        self.left = -1
        self.beside = ""
        self.unsure = 0.0

    def light(self) -> None:
        """Somewhere, or just around the next transaction, or within a record of the journal: where a crash is worst."""
        self.beside = self._rng.choice(("", "before sending", "after sending", "within"))
        self.left = -1 if self.beside else self._rng.randrange(16)

    def quench(self) -> None:
        """No kill, and no doubt."""
        self.left, self.beside, self.unsure = -1, "", 0.0

    def before(self, what: str) -> None:
        """A point before an effect."""
        if what.startswith("put"):
            return self.burn(f"before {what}")
        self.burn(f"before sending {what}")
        self._doubt(f"  not sent: {what}")
        return None

    def after(self, what: str) -> None:
        """A point after an effect."""
        if what.startswith("put"):
            return self.burn(f"after {what}")
        self._note(f"  {what}")
        self.burn(f"after sending {what}")
        self._doubt("  sent, but no answer")
        return None

    def _doubt(self, line: str) -> None:
        if self.unsure and self._rng.random() < self.unsure / 2:
            self._note(line)
            raise LedgerUnreachable("no answer from the node")

    def burn(self, where: str) -> None:
        """Any other point.

        Raises:
          Killed: this one.
        """
        if self.left == 0 or (self.beside and where.startswith(self.beside)):
            self.quench()
            self._note(f"  KILLED {where}")
            raise Killed
        self.left -= self.left > 0


class SimulatedSite:
    """A site's host: what survives its processes."""

    def __init__(self, i: int, folder: Path, app: ClientApp, settings: Settings, account: Account, fuse: Fuse) -> None:
        self.index, self.folder, self.fuse, self.account = i, folder, fuse, account
        self._app, self._settings = app, settings
        self._context = Context(1, 1000 + i, {"partition-id": i}, RecordDict(), {})
        self.free_at = self.down_until = 0.0
        self.life = 0
        folder.mkdir(parents=True)

    @contextmanager
    def open(self, store: SiteStore) -> Iterator[Site]:
        """As `site.state.open_site`."""
        yield Site(
            folder=self.folder, identity=identity(self.index), ledger=self.account, store=store,  # type: ignore[arg-type]
            journal=Journal(self.folder / "journal"), settings=self._settings,
        )  # fmt: skip

    def execute(self, message: Message) -> Message:
        """Carry out a message in a process of its own.

        Raises:
          Killed: the process was.
        """
        try:
            return self._app(message, self._context)
        except Exception as error:  # noqa: BLE001  # as Flower does: any error of an app becomes a reply
            return Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)

    def lose_journal(self) -> None:
        """The file is gone, the site's other files are not."""
        for path in self.folder.glob("journal*"):
            path.unlink()

    def remove(self) -> None:
        """Clean up."""
        shutil.rmtree(self.folder, ignore_errors=True)
