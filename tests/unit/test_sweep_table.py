"""The table of a sweep over attacks: what was attacked, whom it cost, and what the final model is worth."""

import csv
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr import sweep
from bahefl_flwr.run_folder import RunFolder, attack_facts, create, summarise
from bahefl_flwr.settings import Settings
from bahefl_flwr.simulation import Simulation
from run_lines import line


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs that end at once: member 2 attacks, and was left out of one of two attacked rounds, with member 0."""

    def simulate(app_module: str, settings: Settings, **options: Any) -> Simulation:
        run_id = len(list(tmp_path.glob("*-smoke*"))) + 1
        folder: RunFolder = create(tmp_path, settings.run.name, run_id, settings.yaml())
        lines = [line(1, score=0.9), line(2, excluded={"0": "conflict", "2": "conflict"}), line(3)]
        for each in lines:
            folder.append_metrics(each)
        summary = summarise(lines, experiment="smoke", seconds=1.0, test={"dice": 0.25, "loss": 0.7})
        summary["asked"] = 4
        if settings.attack.name != "none":
            summary["attack"] = attack_facts(lines, settings.attack.name, [2] if settings.attack.fraction else [], 2)
        folder.write_summary(summary)
        return Simulation(run_id=run_id, folder=folder)

    monkeypatch.setattr(sweep, "simulate", simulate)
    return tmp_path


def rows(root: Path) -> list[dict[str, str]]:
    with next(root.glob("*-sweep.csv")).open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_of_attacks_has_a_column_for_each_override_and_outcome(simulated: Path) -> None:
    """Choices of a group are swept like values; the experiment beside them stays."""
    overrides = ["experiment=smoke", f"run.root={simulated}", "attack=zero,sign_flip", "attack.fraction=0,0.3"]
    assert sweep.run_sweep("app", overrides) == 0
    table = rows(simulated)
    assert [(row["attack"], row["attack.fraction"]) for row in table] == [
        ("zero", "0"), ("zero", "0.3"), ("sign_flip", "0"), ("sign_flip", "0.3"),
    ]  # fmt: skip
    assert [(row["attackers_out"], row["honest_out"]) for row in table] == [("0.00", "1.00"), ("0.50", "0.50")] * 2


def test_the_last_round_stands_beside_the_best_one(simulated: Path) -> None:
    """The best round, whose model is tested, may lie before the attack: its figures alone would hide the damage."""
    sweep.run_sweep("app", ["experiment=smoke", f"run.root={simulated}", "attack=none,zero"])
    table = rows(simulated)
    assert [(row["dice"], row["test_dice"], row["test_loss"]) for row in table] == [("0.9000", "0.2500", "0.7000")] * 2
    assert [(row["last_dice"], row["attackers_out"]) for row in table] == [("", ""), ("0.5000", "0.50")]


def test_a_sweep_shows_where_rounds_are_missing(simulated: Path) -> None:
    """Four were asked for, three gave a model: the outcome alone is `completed` all the same."""
    sweep.run_sweep("app", ["experiment=smoke", f"run.root={simulated}", "train.lr=1e-3,2e-3"])
    table = [(row["outcome"], row["asked"], row["rounds"], row["abandoned"]) for row in rows(simulated)]
    assert table == [("completed", "4", "3", "0")] * 2


def test_a_sweep_without_attacks_has_no_columns_for_them(simulated: Path) -> None:
    """Nobody who sweeps learning rates reads of attackers."""
    sweep.run_sweep("app", ["experiment=smoke", f"run.root={simulated}", "train.lr=1e-3,2e-3"])
    assert "attackers_out" not in rows(simulated)[0]
