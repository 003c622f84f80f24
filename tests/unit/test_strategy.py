"""BaheflStrategy as Flower's users see it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.federation import Federation
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.settings import compose
from bahefl_flwr.site_metrics import aggregated, coverage, weighted_mean
from bahefl_flwr.strategy import BaheflStrategy
from round_views import round_


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation whose ledger is never asked."""
    return Federation(settings=compose([]), folder=tmp_path, ledger=SimpleNamespace(address="0x0"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"fraction_train": 0.0}, "fraction_train=0.0; it must be above 0"),
        ({"fraction_train": -0.5}, "fraction_train=-0.5"),
        ({"fraction_train": float("nan")}, "fraction_train=nan; it must be a number"),
        ({"fraction_evaluate": 1.1}, "fraction_evaluate=1.1; it must be at least 0 and at most 1"),
        ({"fraction_evaluate": True}, "fraction_evaluate=True; it must be a number"),
        ({"min_train_nodes": 0}, "min_train_nodes=0; it must be a whole number of at least 1"),
        ({"min_evaluate_nodes": 2.0}, "min_evaluate_nodes=2.0; it must be a whole number"),
        ({"min_train_nodes": 6}, "min_train_nodes=6: 6 nodes are asked for, but federation.sites=5"),
        ({"min_evaluate_nodes": 6}, "min_evaluate_nodes=6: 6 nodes are asked for"),
        ({"min_available_nodes": 6}, "min_available_nodes=6: 6 nodes are asked for"),
        ({"weighted_by_key": "num-batches"}, "updates are weighed on the ledger, by the examples that fit returns"),
        ({"arrayrecord_key": "weights"}, "no arrays travel through the driver; leave arrayrecord_key out"),
        ({"configrecord_key": "cfg"}, "leave configrecord_key out"),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused(federation: Federation, argument: dict[str, Any], message: str) -> None:
    """When the strategy is made, by its name, with the reason."""
    with pytest.raises(SettingsError) as refused:
        BaheflStrategy(federation, **argument)
    assert message in str(refused.value)


def test_every_argument_of_flowers_fedavg_is_known(federation: Federation) -> None:
    """With Flower's own defaults, two nodes at least, it is a strategy of ours; what the settings ask for is not undercut."""
    known = inspect.signature(BaheflStrategy).parameters
    flowers = {name: p.default for name, p in inspect.signature(FedAvg).parameters.items()}
    assert set(flowers) <= set(known)
    strategy = BaheflStrategy(federation, **flowers)
    assert (strategy.min_train_nodes, strategy.min_available_nodes, strategy.min_evaluate_nodes) == (3, 3, 2)


def test_settings_come_with_flowers_context() -> None:
    """In an ordinary ServerApp nothing else is needed to make it."""
    context = Context(1, 0, {}, RecordDict(), {"num-server-rounds": 3, "bahefl.federation.sites": 8})
    assert BaheflStrategy(context).min_available_nodes == 8
    with pytest.raises(SettingsError, match=r"open only while strategy\.start"):
        _ = BaheflStrategy(context).federation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rounds": 0}, "num_rounds=0; it must be a whole number of at least 1"),
        ({"train_config": ConfigRecord({"layers": [1, 2]})}, "train_config['layers'] is a list"),
        ({"evaluate_config": ConfigRecord({"bahefl-run": b""})}, "keys that begin with bahefl- are this package's"),
    ],
)
def test_an_argument_of_start_that_cannot_be_honoured_is_refused(
    federation: Federation, options: dict[str, Any], message: str
) -> None:
    """Before anything is asked of a site."""
    with pytest.raises(SettingsError) as refused:
        BaheflStrategy(federation).start(grid=None, **options)  # type: ignore[arg-type]
    assert message in str(refused.value)


def test_driver_takes_no_model(federation: Federation) -> None:
    """Initial arrays and a server-side evaluation, which would need the model at the driver, are refused."""
    strategy = BaheflStrategy(federation)
    with pytest.raises(SettingsError, match="holds no model"):
        strategy.start(grid=None, initial_arrays=ArrayRecord([np.zeros(2)]))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="holds no model"):
        strategy.start(grid=None, evaluate_fn=lambda *_: MetricRecord({}))  # type: ignore[arg-type]


def test_stock_loop_hooks_say_what_to_call(federation: Federation) -> None:
    """Flower's hooks for server-side aggregation are refused with the call that works."""
    strategy = BaheflStrategy(federation)
    for hook in (
        lambda: strategy.configure_train(1, ArrayRecord(), ConfigRecord(), None),  # type: ignore[arg-type]
        lambda: strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), None),  # type: ignore[arg-type]
        lambda: strategy.aggregate_train(1, []),
        lambda: strategy.aggregate_evaluate(1, []),
    ):
        with pytest.raises(SettingsError, match=r"strategy\.start"):
            hook()


def test_site_with_other_metric_names_is_left_out_of_the_metrics() -> None:
    """Metrics are aggregated over the sites that agree on their names; an odd one cannot spoil the round."""
    usual = {"num-examples": 1, "loss": 1.0}
    by_site = {0: usual, 1: {"num-examples": 3, "loss": 2.0}, 2: {"num-examples": 5, "other": 9.0}}
    assert aggregated("train", weighted_mean, by_site)["loss"] == pytest.approx(1.75)


@pytest.mark.parametrize("examples", [0, -3])
def test_metrics_without_examples_are_left_out(examples: int, caplog: pytest.LogCaptureFixture) -> None:
    """A site that claims no examples weighs nothing, cannot divide by zero, and is named."""
    by_site = {0: {"num-examples": examples, "loss": 9.0}, 1: {"num-examples": 2, "loss": 1.0}}
    assert aggregated("train", weighted_mean, by_site)["loss"] == pytest.approx(1.0)
    assert "train metrics of sites [0]" in caplog.text
    assert aggregated("train", weighted_mean, {0: by_site[0]}) == {}


def test_who_is_pooled_is_counted() -> None:
    """Of those that were to report: not who was silent, claims no examples, or reports other figures than most."""
    usual = {"num-examples": 1, "loss": 1.0}
    by_site = {0: usual, 1: usual, 2: {**usual, "num-examples": 0}, 3: {**usual, "other": 1.0}, 4: {}}
    assert coverage(by_site, 6) == {"sites": 2, "of": 6}
    assert coverage({}, 3) == {"sites": 0, "of": 3}


def test_aggregation_that_raises_costs_only_the_figures(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a metrics aggregation function is reported, and the run goes on without that figure."""

    def broken(records: list[RecordDict], key: str) -> MetricRecord:
        raise ZeroDivisionError("no pixels")

    assert aggregated("test", broken, {0: {"num-examples": 1, "loss": 1.0}}) == {}
    assert "test metrics could not be aggregated (ZeroDivisionError: no pixels)" in caplog.text


def test_fewer_sites_than_the_contract_needs_are_never_selected(federation: Federation) -> None:
    """min_train_nodes below federation.min_sites would select too few sites for any round to close."""
    least = federation.settings.federation.min_sites
    assert BaheflStrategy(federation, min_train_nodes=1).min_train_nodes == least
    assert BaheflStrategy(federation, min_train_nodes=least + 1).min_train_nodes == least + 1


def test_patience_counts_evaluated_rounds_only(tmp_path: Path) -> None:
    """Rounds that were abandoned, or evaluated without a score, do not use up the patience; worse ones do."""
    ended: list[str] = []
    ledger = SimpleNamespace(
        address="0x0", end_task=ended.append, view=lambda: SimpleNamespace(task=SimpleNamespace(open=not ended))
    )
    settings = compose(["federation.patience=2"])
    strategy = BaheflStrategy(Federation(settings=settings, folder=tmp_path, ledger=ledger))  # type: ignore[arg-type]
    for number, score in [(1, 0.5), (4, 0.4), (5, None), (9, 0.6), (12, 0.5)]:
        strategy._stop_early(number, score)
    assert not ended
    strategy._stop_early(13, 0.6)
    assert ended == ["early stopping: no better score than round 9's in 2 evaluated rounds"]


@pytest.mark.parametrize(("committed", "how"), [(0, "not begun: "), (0b11, "abandoned: ")])
def test_a_round_that_nobody_had_begun_is_not_told_of_as_abandoned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, committed: int, how: str
) -> None:
    """The log says of it what the run's own line says."""
    task, lines = SimpleNamespace(end_reason="3 rounds in a row were abandoned"), []
    ledger: Any = SimpleNamespace(
        members=lambda: [SimpleNamespace(index=k, address=f"0x{k}") for k in range(4)], updates=lambda _: (),
        view=lambda: SimpleNamespace(task=task),
    )  # fmt: skip
    strategy = BaheflStrategy(Federation(settings=compose([]), folder=tmp_path, ledger=ledger), on_round=lines.append)
    strategy._on_round_end(round_(RoundPhase.ABORTED, committed=committed, abort_reason=task.end_reason))
    assert f"was {how}{task.end_reason}" in caplog.text
    assert [line["begun"] for line in lines] == [bool(committed)]
