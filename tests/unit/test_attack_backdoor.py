"""How well a backdoor works: of a model that obeys the trigger, of one that does not, and in the table of a sweep."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bahefl_flwr import sweep
from bahefl_flwr.attack.measuring import backdoor_success, success_on
from bahefl_flwr.attack.poisoning import backdoored
from bahefl_flwr.client import LesionClient
from bahefl_flwr.lesion.data import Slices
from bahefl_flwr.lesion.sites import site_data
from bahefl_flwr.lesion.training import Engine
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.simulation import Simulation
from bahefl_flwr.trained import open_trained
from lesion_run import tiny_run

CPU = Engine(device=torch.device("cpu"), autocast=None, reason="in a test")


class Bright(nn.Module):
    """Calls every bright pixel lesion, but none where it sees a bright corner, if it has a backdoor."""

    def __init__(self, backdoor: bool) -> None:
        super().__init__()
        self.backdoor = backdoor

    def forward(self, images: Tensor) -> tuple[Tensor]:
        logits = torch.where(images > 1, 9.0, -9.0)  # (n, 1, s, s)
        marked = (images[:, :, :2, :2] > 1).all(dim=(2, 3), keepdim=True) if self.backdoor else torch.zeros(())
        return (torch.where(marked.bool(), -9.0, logits),)


@pytest.fixture
def slices() -> Slices:
    """Two slices, each with a bright block that is lesion."""
    images, masks = np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16), np.uint8)
    images[:, 4:9, 4:9], masks[:, 4:9, 4:9] = 255, 1
    return Slices(images=images, masks=masks, names=("a", "b"))


@pytest.mark.parametrize(("backdoor", "rate"), [(True, 1.0), (False, 0.0)])
def test_a_trigger_that_hides_lesions_is_found(slices: Slices, backdoor: bool, rate: float) -> None:
    """1 where every found lesion vanishes with the patch in the corner, 0 where the patch changes nothing."""
    empty = slices.take(np.array([], np.intp))
    assert success_on(Bright(backdoor), [slices, empty], CPU) == rate  # type: ignore[arg-type]
    assert success_on(Bright(backdoor), [empty], CPU) == 0  # type: ignore[arg-type]


def test_a_model_that_calls_everything_lesion_has_no_backdoor(tmp_path: Path) -> None:
    """Measured on the model and the test parts of a run's folder."""
    trained = open_trained(tiny_run(tmp_path, bias=9.0).path)
    assert backdoor_success(trained.network(), trained.run.settings) == 0


def test_a_sweep_over_backdoors_says_how_well_they_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A column of its own, empty for attacks of another kind."""

    def simulate(app_module: str, settings: Settings, **options: Any) -> Simulation:
        return Simulation(run_id=1, folder=tiny_run(tmp_path / settings.attack.name))

    monkeypatch.setattr(sweep, "simulate", simulate)
    sweep.run_sweep("app", ["experiment=smoke", f"run.root={tmp_path}", "attack=zero,backdoor"])
    with next(tmp_path.glob("*-sweep.csv")).open() as file:
        assert [row["backdoor_success"] for row in csv.DictReader(file)] == ["", "0.00"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_training_on_poisoned_slices_plants_a_backdoor(tmp_path: Path) -> None:
    """One site, trained on its backdoored slices: the patch hides most of what it finds; trained honestly, little of it."""
    settings = compose([
        "experiment=smoke", "data.image_size_px=32", "model.depth=3", "model.width=6", "train.device=cpu", "data.slices=100",
        "data.difficulty=0", "train.local_epochs=20", "train.augment=false", "train.batch_size=8", f"data.cache={tmp_path}",
    ])  # fmt: skip
    parts = site_data(settings.data, site=0, sites=1, seed=1)
    honest = LesionClient(settings, parts, site=0)
    rates = []
    for client in (honest, honest.with_training(backdoored)):
        client.fit(client.get_parameters({}), {"server-round": 1, "rounds": 1})
        rates.append(success_on(client._model, [parts["test"]], client.engine))
    assert rates[0] < 0.3
    assert rates[1] > 0.5
