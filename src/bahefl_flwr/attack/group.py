"""The colluders of one run and the folder they share: each honest or poisoned training of a round happens once.

Files and locks only; what the updates mean is the other modules' business. Processes and threads of one machine may share it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from flwr.common.typing import Scalar
from numpy.typing import NDArray

from bahefl_flwr.attack.catalogue import Attack
from bahefl_flwr.attack.crafting import knowledge
from bahefl_flwr.durable import atomic_write

Vector32 = NDArray[np.float32]

_BASE, _CRAFTED = "base.npz", "crafted.npz"
_DOMAIN = 0xC4AF7


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What one local training gave: the update (P,), and what fit reported beside it."""

    update: Vector32
    examples: int
    metrics: dict[str, Scalar]


Train = Callable[[int, bool], Trained]
"""From the site's partition id and whether it trains on poisoned slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The colluders of one run.

    Attributes:
      folder: what they share; made when first needed.
      sites: their partition ids, ascending. seed: `run.seed`.
    """

    folder: Path
    sites: tuple[int, ...]
    seed: int
    attack: Attack

    @property
    def has_attacked(self) -> bool:
        """Updates were crafted in an earlier round, or in this one."""
        return any(self.folder.glob(f"*/{_CRAFTED}"))

    def remember(self, number: int, base: Vector32) -> None:
        """Note the global model, (P,), that finalised round `number` (from 1) starts from."""
        place = self._place(number, base)
        if not (place / _BASE).exists():
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(place / _BASE, base=base)

    def crafted(self, site: int, number: int, base: Vector32, train: Train) -> Trained:
        """What `site` sends in finalised round `number`: the crafted update beside its benign training's figures.

        Whoever of the group is asked first begins; who is asked meanwhile takes over trainings that nobody has begun. Every lock
        is held for one training and none is waited for while another is held, so that sites that are served one after the other
        never wait for each other. What is written is never changed: asked again, the same bytes.

        Raises:
          BaheflError: as `train`.
        """
        self.remember(number, base)
        place = self._place(number, base)
        for wait in (False, True):
            for member in self.sites:
                for poisoned in self._kinds:
                    path = place / _trained_name(member, poisoned=poisoned)
                    _once(path, partial(_train, path, train, member, poisoned), wait=wait)
        _once(place / _CRAFTED, lambda: self._craft(place, number), wait=True)
        benign = _read_trained(place / _trained_name(site, poisoned=False))
        update = _read(place / _CRAFTED)["updates"][self.sites.index(site)]
        return Trained(update=update, examples=benign.examples, metrics=benign.metrics)

    @property
    def _kinds(self) -> tuple[bool, ...]:
        return (False, True) if self.attack.poison else (False,)

    def _place(self, number: int, base: Vector32) -> Path:
        # The digest, too: an update belongs to the model it starts from, whatever the rounds are numbered.
        return self.folder / f"{number:05d}-{hashlib.sha256(base.tobytes()).hexdigest()[:16]}"

    def _craft(self, place: Path, number: int) -> None:
        benign, poisoned = (
            np.stack([_read_trained(place / _trained_name(site, poisoned=kind)).update for site in self.sites]).astype(np.float64)
            for kind in (False, bool(self.attack.poison))
        )
        known = knowledge(benign, poisoned, self._models(place), (self.seed, _DOMAIN, number))
        _write(place / _CRAFTED, updates=self.attack.craft(known).astype(np.float32))

    def _models(self, place: Path) -> Sequence[NDArray[np.float64]]:
        """The global models up to this round's, oldest first."""
        seen = sorted(path.parent for path in self.folder.glob(f"*/{_BASE}") if path.parent.name[:5] < place.name[:5])
        return [_read(folder / _BASE)["base"].astype(np.float64) for folder in (*seen, place)]


def _once(path: Path, make: Callable[[], None], *, wait: bool) -> None:
    """Make a file that is not there yet, alone; without `wait`, leave it to whoever is at it."""
    if path.exists():
        return
    with _locked(path.with_suffix(".lock"), wait=wait) as mine:
        if mine and not path.exists():
            make()


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process and thread hold the lock; it goes when they end, however they do."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _train(path: Path, train: Train, site: int, poisoned: bool) -> None:
    trained = train(site, poisoned)
    _write(path, update=trained.update, told=np.array(json.dumps([trained.examples, trained.metrics])))


def _trained_name(site: int, poisoned: bool) -> str:
    return f"{'poisoned' if poisoned else 'benign'}-{site:03d}.npz"


def _read_trained(path: Path) -> Trained:
    stored = _read(path)
    examples, metrics = json.loads(str(stored["told"]))
    return Trained(update=stored["update"], examples=examples, metrics=metrics)


def _write(path: Path, **arrays: NDArray[np.generic]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)
