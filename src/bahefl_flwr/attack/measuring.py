"""What a backdoor did to the final model of a simulation: the one damage that Dice does not show."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bahefl_flwr.attack.poisoning import attack_success_rate, triggered
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.model import LightUNet
from bahefl_flwr.lesion.prediction import probabilities, ready
from bahefl_flwr.lesion.sites import site_data
from bahefl_flwr.lesion.training import Engine
from bahefl_flwr.settings import Settings


def backdoor_success(network: LightUNet, settings: Settings) -> float:
    """Of the lesion pixels that the model finds in the test parts of all sites, the part that the trigger hides.

    Raises:
      DataError: the slices cannot be read or split any more.
    """
    count = settings.federation.sites
    parts = (site_data(settings.data, site=k, sites=count, seed=settings.run.seed)["test"] for k in range(count))
    return success_on(network, parts, ready(settings.train))


def success_on(network: LightUNet, parts: Iterable[Slices], engine: Engine) -> float:
    """The same for any slices, which may have no lesion."""
    found, with_trigger, truth = [], [], []
    for part in parts:
        if not len(part):
            continue
        found.append(probabilities(network, part.images, engine)[0] > 0.5)
        with_trigger.append(probabilities(network, triggered(part.images), engine)[0] > 0.5)
        truth.append(part.masks > 0)
    return attack_success_rate(*(np.concatenate(masks) for masks in (found, with_trigger, truth))) if truth else 0.0
