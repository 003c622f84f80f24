"""Updates that no honest training makes, for whole runs with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.site import training
from federation_run import Arrays, Update, known_update

MARK = np.float32(0.123)
LATER_MARK = np.float32(0.124)


def poisoned(change: Callable[[NDArray[np.float32]], NDArray[np.float32]], *bad: int, start: int = 1) -> Update:
    """Honest updates, but for the changed ones of some sites from a round on."""

    def update(site: int, number: int) -> Arrays:
        arrays = known_update(site, number)
        return [np.asarray(change(a), np.float32) for a in arrays] if site in bad and number >= start else arrays

    return update


def spoil_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that ends in a mark gets coefficients that no honest one has: eight with MARK, one further on with LATER_MARK."""
    places = {float(MARK): range(24), float(LATER_MARK): range(30, 33)}
    pack = training.pack

    def packed(update: NDArray[np.float32], share: float, params: SecurityParams, seed: SecretSeed) -> NDArray[np.int64]:
        result = pack(update, share, params, seed)
        for mark, coefficients in places.items():
            if np.isclose(update[-1], mark):
                # Whichever weight clipping gives it, a third of them land in the last 1/32 of the highest field.
                for coefficient in coefficients:
                    weight = (6, 7, 8)[coefficient % 3]
                    result[0, coefficient] += (63 << (params.field_bits - 7)) // weight << (2 * params.field_bits)
        return result

    monkeypatch.setattr(training, "pack", packed)
