"""A secure Flower app that learns nothing: what a site moves the model by follows from its number and the round alone.

So two runs with the same sites have the same updates, whatever the model has come to in the last bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from numpy.typing import NDArray

from bahefl_flwr.site import secure_client_app

Arrays = list[NDArray[np.float32]]
PARAMETERS = 4000


class KnownClient(NumPyClient):
    """Adds a part common to all sites, and noise of its own."""

    def __init__(self, site: int) -> None:
        self._site = site

    def get_parameters(self, config: dict[str, Any]) -> Arrays:
        return [np.full(PARAMETERS, 0.5, np.float32)]

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        common = np.random.default_rng(0).normal(0, 0.05, PARAMETERS)
        own = np.random.default_rng([self._site, int(config["server-round"])]).normal(0, 0.03, PARAMETERS)
        return [parameters[0] + np.asarray(common + own, np.float32)], 10, {"loss": 1.0}

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        return float(np.abs(parameters[0]).mean()), 10, {"score": 0.5}


def _client_fn(context: Context) -> NumPyClient:
    return KnownClient(int(context.node_config["partition-id"]))


client_app = secure_client_app(_client_fn)
