"""The lesion application as an ordinary Flower client: nothing here knows of encryption, ledger or rounds of the protocol.

It may be run by plain Flower too (`client_fn(...).to_client()`), which is what benchmarks/plain_fedavg.py compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from logging import INFO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.client import NumPyClient
from flwr.common import Context
from flwr.common.logger import log
from flwr.common.typing import Scalar

from bahefl_flwr.errors import DataError, ProtocolError
from bahefl_flwr.homes import SITE_HOME, load_site, own_data_root, with_own_data
from bahefl_flwr.lesion import model, training
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.metrics import to_metrics
from bahefl_flwr.lesion.sampling import epoch_counts
from bahefl_flwr.lesion.sites import SiteData, anchor_slices, site_data
from bahefl_flwr.settings import Settings, from_run_config

NDArrays = list[npt.NDArray[np.float32]]
_PARTS = ("validation", "ballot", "test", "anchor")
_CHECKPOINT = "fit.pt"


class LesionClient(NumPyClient):
    """Segments lesions at one site.

    Attributes:
      parameter_names: names of the parameter arrays, in the order they travel in.
      engine: device and precision in use; `str(engine)` says why.
      work_folder: where `fit` may keep a checkpoint of this round; None keeps none. A secure site sets it.
    """

    work_folder: Path | None = None

    def __init__(self, settings: Settings, site_data: SiteData, *, site: int) -> None:
        """Build the model; no training state is kept in it between calls.

        Args:
          site_data: this site's slices per part. site: its index, which seeds order and augmentation.

        Raises:
          SettingsError: the model does not fit the image size, or the device is not there.
        """
        self._settings, self._data, self._site = settings, site_data, site
        self._model = model.build(settings.model, settings.data.image_size_px)
        self.engine = training.pick_engine(settings.train)
        self.parameter_names = tuple(self._model.state_dict())
        self._examples = sum(epoch_counts(site_data["train"].has_lesion, settings.train.positive_fraction))

    def with_training(self, change: Callable[[Slices], Slices]) -> LesionClient:
        """The same client, with its training slices changed: what a site of an attack simulation trains on (docs/attacks.md)."""
        return LesionClient(self._settings, {**self._data, "train": change(self._data["train"])}, site=self._site)

    def get_properties(self, config: dict[str, Scalar]) -> dict[str, Scalar]:
        """How many slices an epoch has, what `weighting: examples` weighs by; and that every site has the same part "anchor"."""
        return {"num-examples": self._examples, "anchor": True}

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """The first weights of the task, equal at every site: float32, in state_dict order."""
        return model.initial_weights(self._model, self._settings.run.seed)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train for `train.local_epochs`; on one CPU thread equal arguments give equal weights, so repeating is harmless.

        Args:
          parameters: the global model, as get_parameters gives it.
          config: "server-round" (from 1) and "rounds" (of the task): they place these epochs in the schedule.

        Returns:
          The trained parameters, the number of slices of an epoch, and {"loss", "lr", "steps", "seconds", "cpu-seconds",
          "resumed-epochs", "precision"}.

        Raises:
          ProtocolError: the round is missing or below 1. UpdateError: unfit parameters. TrainingError: the loss diverged.
        """
        train = self._settings.train
        round_number, rounds = (_positive(config, key) for key in ("server-round", "rounds"))
        clock = training.Clock(first_epoch=(round_number - 1) * train.local_epochs, total_epochs=rounds * train.local_epochs)
        training.load_weights(self._model, parameters)
        seed = self._settings.run.seed * 1000 + self._site
        file = self.work_folder / _CHECKPOINT if self.work_folder else None
        report = training.fit(
            self._model, self._data["train"], train, clock=clock, seed=seed, engine=self.engine, checkpoint_file=file
        )
        metrics: dict[str, Scalar] = {
            "loss": report.loss,
            "lr": report.last_lr,
            "steps": report.steps,
            "seconds": report.seconds,
            "cpu-seconds": report.cpu_seconds,
            "resumed-epochs": report.resumed_epochs,
            "precision": str(self.engine),
        }
        return training.weights_of(self._model), self._examples, metrics

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate the given model on one part of the site's slices, or on the anchor set, which is the same at every site.

        Args:
          parameters: as in fit.
          config: "part": "validation" (if absent), "ballot" (the same slices, to vote on a candidate by), "test" or "anchor".

        Returns:
          The mean loss, the number of slices, and sums that add up over sites (metrics.from_metrics reads them).

        Raises:
          ProtocolError: no such part. UpdateError: unfit parameters.
        """
        part = config.get("part", "validation")
        if part not in _PARTS:
            raise ProtocolError(f'evaluate was asked for part {part!r}; config["part"] must be one of {", ".join(_PARTS)}')
        training.load_weights(self._model, parameters)
        slices = self._slices(str(part))
        loss, evaluation = training.evaluate(self._model, slices, self._settings.train, self.engine)
        return loss, len(slices), to_metrics(evaluation)

    def _slices(self, part: str) -> Slices:
        if part == "anchor":
            return anchor_slices(self._settings.data, count=self._settings.screening.anchor_slices)
        return self._data["test" if part == "test" else "validation"]


def client_fn(context: Context) -> LesionClient:
    """The client of this node, from Flower's context.

    A node whose config names `data.root`, or a home whose `site.yaml` names `data-root`, reads that folder as its own: a
    deployment. A node with `partition-id` takes its share of the phantom or of the common folder (simulation).

    Raises:
      SettingsError: the run config is incomplete or wrong.
      DataError: the node has no data, or they cannot be read or split.
    """
    node = context.node_config
    home = Path(str(node[SITE_HOME])).expanduser() if SITE_HOME in node else None
    own_folder = own_data_root(node, load_site(home) if home else None)
    # Where a site writes is not for a run to say.
    settings = with_own_data(from_run_config(context.run_config), own_folder, cache=str(home / "cache") if home else "")
    if own_folder:
        site, sites = 0, 1
    elif "partition-id" in node:
        site, sites = int(node["partition-id"]), int(node.get("num-partitions", settings.federation.sites))
    else:
        raise DataError(
            "this node has no data: name its folder with frames/ and masks/ as data-root in the home's site.yaml, or start its "
            "SuperNode with --node-config 'data.root=\"<folder>\"'"
        )
    client = LesionClient(settings, site_data(settings.data, site=site, sites=sites, seed=settings.run.seed), site=site)
    _announce(str(client.engine))
    return client


@lru_cache(maxsize=1)
def _announce(engine: str) -> None:
    """Say it once a process, not once a message."""
    log(INFO, "lesion training in %s", engine)


def _positive(config: Mapping[str, Scalar], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ProtocolError(f'fit needs config["{key}"], a whole number from 1; got {value!r}')
    return value
