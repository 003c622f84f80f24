"""benchmarks/learning.py on a tiny federation: what its tables say is what was measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from bahefl_flwr.settings import Settings, compose
from lesion_run import TINY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("learning")


@pytest.fixture
def tiny(tmp_path: Path) -> Settings:
    """Two rounds of three sites on phantoms."""
    return compose([*TINY, f"data.cache={tmp_path}", "train.local_epochs=1"])


def test_federated_and_central_are_tested_on_the_same_slices(learning: ModuleType, tiny: Settings) -> None:
    """Central training joins the sites' parts: as many test slices, the same passes, and CPU seconds of fit alone."""
    federated, central = learning.federated(tiny), learning.central(tiny)

    assert federated["slices"] == central["slices"] > 0
    assert len(federated["validation_dice"]) == tiny.federation.rounds
    assert min(federated["train_cpu_s"], central["train_cpu_s"]) > 0


def test_the_table_has_means_and_every_seed(learning: ModuleType) -> None:
    """A mean never hides its spread; a single seed is called one; what was not measured is not in the table."""
    figures = {"recall": 0.8, "precision": 0.8, "mean_dice_of_positive_slices": 0.7, "hd95_px": 5.0, "train_cpu_s": 300.0}
    kept = {
        "federated-1": {**figures, "dice": 0.8},
        "federated-2": {**figures, "dice": 0.84},
        "encrypted-1": {**figures, "dice": 0.801, "wall_s": 900.0},
    }

    text = learning.tables(kept)

    assert "| federated, plain FedAvg | 1, 2 | **0.820** (0.800, 0.840) |" in text
    assert "| federated, encrypted, with ledger | 1 | 0.801 |" in text
    assert "Dice +0.0010; recall +0.0000" in text
    assert "central" not in text


def test_the_plain_network_has_as_many_parameters(learning: ModuleType) -> None:
    """Within a tenth of the light U-Net's: no width comes nearer."""
    unets = importlib.import_module("unets")
    light = unets.parameters(unets.LightUNet(16, 4, 2))

    assert abs(unets.parameters(unets.plain_of(light)) - light) < light / 10
