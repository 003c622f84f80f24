"""Runs with the NumPyClients of somebody else: what they get wrong costs them their part, and is told; the run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context
from flwr.client import NumPyClient

from bahefl_flwr.errors import RunFailed
from bahefl_flwr.site.client_app import ClientFn
from bahefl_flwr.site.model import Model, load_model
from federation_run import Run, federated_run

TOLD: dict[str, list[Mapping[str, Any]]] = {"fit": [], "evaluate": []}


class Careless(NumPyClient):
    """A model with a counter, float64 weights and an empty array; no get_properties. Sites differ in what they get wrong."""

    def __init__(self, site: int) -> None:
        self.site = site

    def get_parameters(self, config: Any) -> Any:
        return [np.full((40, 30), 0.5), np.array(3, np.int64), np.zeros((0, 5), np.float32)]

    def fit(self, parameters: Any, config: Any) -> Any:
        TOLD["fit"].append(config)
        if self.site == 2 and config["server-round"] == 1:
            return [np.ones((40, 30), np.int32), *parameters[1:]], 5, {}
        assert parameters[1] == 3
        rng = np.random.default_rng([self.site, config["server-round"]])
        return [parameters[0] + 0.1 + rng.normal(0, 0.01, (40, 30)), np.array(99, np.int64), parameters[2]], 5, {"loss": 1.0}

    def evaluate(self, parameters: Any, config: Any) -> Any:
        TOLD["evaluate"].append({**config, "site": self.site})
        if self.site == 1:
            raise KeyError("accuracy")
        return float(np.abs(1 - parameters[0]).mean()), 5, {}


def clients(kind: type[NumPyClient], *arguments: Any) -> Any:
    """The `wrap` of federated_run that puts other clients in place of its own."""

    def client_fn(context: Context) -> NumPyClient:
        return kind(int(context.node_config["partition-id"]), *arguments)  # type: ignore[call-arg]

    def wrap(_: ClientFn) -> ClientFn:
        return client_fn

    return wrap


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four sites, two rounds."""
    for told in TOLD.values():
        told.clear()
    return federated_run(
        tmp_path_factory.mktemp("careless"), "he.update_range=1", wrap=clients(Careless),
        start_options={"train_config": ConfigRecord({"lr": 0.1}), "evaluate_config": ConfigRecord({"batches": 2})},
    )  # fmt: skip


def final(run: Run) -> list[Model]:
    """Every site's own model."""
    return [load_model(run.site_folder(site) / "model.safetensors") for site in range(4)]


def test_a_counter_stays_and_the_rest_is_averaged(careless: Run) -> None:
    """Two rounds of 0.1: the same bits at every site, and the counter of the first weights."""
    models = final(careless)
    assert len({model.digest() for model in models}) == 1
    assert models[0].vector().mean() == pytest.approx(0.7, abs=0.01)
    assert [c.value for c in models[0].counters] == [3]


def test_a_site_whose_fit_is_unfit_sits_the_round_out(careless: Run) -> None:
    """Round 1 is without site 2, by its own refusal, and round 2 with it."""
    assert [len(line["committed"]) for line in careless.lines] == [3, 4]
    assert [len(line["declined"]) for line in careless.lines] == [1, 0]


def test_an_evaluate_that_raises_costs_its_figures_only(careless: Run) -> None:
    """Its site takes part in both rounds, and a note says what was raised."""
    address = careless.address(1).lower()
    index = next(m.index for m in careless.members if m.address.lower() == address)
    assert all(index in line["included"] for line in careless.lines)
    notes = [note for line in careless.lines for note in line["notes"]]
    assert f"site {index}: site {index}, round 1: evaluate raised KeyError: 'accuracy'" in notes
    assert [len(line["sites"]) for line in careless.lines] == [3, 3]


def test_every_part_is_evaluated_once_a_site(careless: Run) -> None:
    """The model of round 0, of round 1, and at the end the final and the chosen one."""
    parts = Counter((told["server-round"], told["part"]) for told in TOLD["evaluate"])
    assert parts == {(1, "validation"): 4, (2, "validation"): 8, (2, "test"): 4}


def test_fit_and_evaluate_get_their_own_configs(careless: Run) -> None:
    """As with Flower's strategies."""
    assert all("lr" in told and "batches" not in told for told in TOLD["fit"])
    assert all("batches" in told and "lr" not in told for told in TOLD["evaluate"])


class Bare(NumPyClient):
    """Trains, by the same change each round, and evaluates nothing."""

    def __init__(self, site: int, change: float = 0.1) -> None:
        self.change = change

    def get_parameters(self, config: Any) -> Any:
        return [np.zeros(50, np.float32)]

    def fit(self, parameters: Any, config: Any) -> Any:
        return [parameters[0] + np.float32(self.change)], 5, {}


class Counting(Bare):
    """Counts who evaluates."""

    evaluations: ClassVar[list[tuple[int, str]]] = []

    def evaluate(self, parameters: Any, config: Any) -> Any:
        self.evaluations.append((config["server-round"], config["part"]))
        return 1.0, 5, {}


class Broken(Bare):
    """Changes the shape of its model."""

    def fit(self, parameters: Any, config: Any) -> Any:
        return [parameters[0].reshape(5, 10)], 5, {}


def test_a_client_that_only_trains_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rounds are told without figures; sites that name no number of examples weigh the same, and a warning says so."""
    run = federated_run(tmp_path, "federation.rounds=1", wrap=clients(Bare), strategy_options={"fraction_evaluate": 0.0})
    assert [(line["finalised"], line["validation"]) for line in run.lines] == [(True, {})]
    assert run.final_model == final(run)[0].digest().hex()
    assert "name no number of examples" in caplog.text


def test_only_a_fraction_evaluates_each_model(tmp_path: Path) -> None:
    """Two of four sites, at least; every site knows the final model all the same."""
    Counting.evaluations.clear()
    options = {"fraction_evaluate": 0.25, "min_evaluate_nodes": 2}
    run = federated_run(tmp_path, "federation.rounds=1", wrap=clients(Counting), strategy_options=options)
    assert Counter(Counting.evaluations) == {(1, "validation"): 4, (1, "test"): 2}
    assert {model.digest().hex() for model in final(run)} == {run.final_model}


def test_what_every_site_gets_wrong_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """No round is finalised, nobody waits for a deadline, and the error is each site's own."""
    with pytest.raises(RunFailed) as failed:
        federated_run(tmp_path, wrap=clients(Broken))
    for site in range(4):
        assert f"site {site}, round 3: fit changed the shape of parameter_000 from (50,) to (5, 10)" in str(failed.value)


@pytest.mark.slow
def test_updates_of_zero_change_nothing(tmp_path: Path) -> None:
    """A model that nobody changed stays as it was, or the round says why it was abandoned."""
    try:
        run = federated_run(tmp_path, "federation.rounds=1", wrap=clients(Bare, 0.0))
    except RunFailed as failed:
        assert "no round was finalised" in str(failed)  # noqa: PT017
    else:
        assert not final(run)[0].vector().any()
