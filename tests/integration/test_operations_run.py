"""What a real secure run tells its operators: log lines that belong to something, metrics that add up, nothing secret."""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bahefl_flwr import logs, metrics
from bahefl_flwr.doctor.examination import reality
from bahefl_flwr.doctor.finding import Level
from bahefl_flwr.doctor.prediction import predict
from bahefl_flwr.site.state import task_params
from federation_run import SHAPES, Run, federated_run

PARAMETERS = sum(math.prod(shape) for shape in SHAPES)


def one_fails(site: int, number: int) -> None:
    """Site 1 cannot train."""
    if site == 1:
        raise ValueError("no more memory")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]], Path]:
    """A run of four sites, one of which fails: the run, its log lines, and the folder of its metrics."""
    folder = tmp_path_factory.mktemp("told")
    logger = logging.getLogger("bahefl_flwr")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(logs.VARIABLE, f"json:{folder / 'log.jsonl'}")
        patch.setenv(metrics.VARIABLE, str(folder / "metrics"))
        logs.configure(f"json:{folder / 'log.jsonl'}")
        driver = metrics.DriverMetrics(str(folder / "metrics"))
        with logs.belonging(run="of the driver"), driver.run():
            run = federated_run(folder, "federation.rounds=1", misbehave=one_fails)
            for line in run.lines:
                driver.round(line)
    logger.level, logger.propagate, logger.handlers = before
    return run, [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()], folder / "metrics"


def series(file: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Values of a text file by metric and labels other than the site."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(file.read_text()):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "site")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_every_line_says_what_it_belongs_to(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """Time in UTC, level, logger, message, and run, round, epoch, site and phase, null where there is none."""
    for line in told[1]:
        assert {"time", "level", "logger", "message", *logs.CONTEXT} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert line["run"]


def test_both_sides_log(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """The driver names rounds and phases; sites also themselves, by the addresses that the ledger has."""
    run, lines, _ = told
    members = {m.address for m in run.members}
    of_sites = [line for line in lines if line["logger"] == "bahefl_flwr.site"]
    assert {line["site"] for line in of_sites} == members
    assert {"hello", "commit_seeds", "train", "upload", "screen", "aggregate", "open", "confirm", "evaluate"} <= {
        line["phase"] for line in of_sites
    }
    assert {line["round"] for line in of_sites if line["phase"] == "train"} == {1}
    assert {line["epoch"] for line in of_sites if line["phase"] == "commit_seeds"} == {1}
    drivers = [line for line in lines if line["logger"] == "bahefl_flwr.driver" and line["phase"] == "train"]
    assert {(line["round"], line["epoch"], line["site"]) for line in drivers} == {(1, 1, None)}


def test_a_failure_is_told_on_both_sides(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """At the site with the traceback, at the driver with the member it is about."""
    run, lines, _ = told
    (at_site,) = [line for line in lines if line["logger"] == "bahefl_flwr.site" and line["level"] == "warning"]
    assert "ValueError: no more memory" in at_site["traceback"]
    assert at_site["site"] == run.address(1)
    (at_driver,) = [line for line in lines if line["logger"] == "bahefl_flwr.driver" and "did not train" in line["message"]]
    member = {m.address: m.index for m in run.members}[run.address(1)]
    assert (at_driver["member"], "traceback" in at_driver) == (member, False)


def test_no_secret_is_in_log_or_metrics(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """Neither the sites' long-term secrets nor the shares of the key, in hex or base64."""
    run, lines, folder = told
    everything = json.dumps(lines) + "".join(file.read_text() for file in folder.glob("*.prom"))
    for site in range(4):
        identity = (run.site_folder(site) / "identity" / "identity.key").read_bytes()
        secrets = {bytes.fromhex(found.decode()) for found in re.findall(rb'"([0-9a-f]{64})"', identity)} | run.key_seeds(site)
        assert len(secrets) == 6
        for secret in secrets:
            assert secret.hex() not in everything
            assert base64.b64encode(secret).decode() not in everything


def test_the_drivers_metrics_add_up(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """What the run's own line says, as Prometheus reads it."""
    run, _, folder = told
    (line,) = run.lines
    found = series(folder / metrics.DRIVER_FILE)
    assert found["bahefl_rounds_total"] == {("finalised",): 1.0}
    assert found["bahefl_round"] == {(): 2.0}
    assert found["bahefl_run_active"] == {(): 0.0}
    assert found["bahefl_bytes_total"][("update",)] == line["bytes"]["update"]
    assert found["bahefl_gas_total"] == {(): line["gas"]["total"]}
    assert found["bahefl_phase_seconds_total"][("train",)] == pytest.approx(line["seconds"]["train"])


def test_every_site_counts_its_own(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """One file a site; its bytes are an update's, its failure has a name, and no label is made of an object's number."""
    run, _, folder = told
    files = {site: folder / metrics.SITE_FILE.format(run.address(site)) for site in range(4)}
    well, failed = series(files[0]), series(files[1])
    assert well["bahefl_site_actions_total"][("train",)] == 1.0
    assert failed["bahefl_site_errors_total"] == {("TrainingError",): 1.0}
    assert ("train",) not in failed["bahefl_site_actions_total"]
    kinds = {labels[0] for file in files.values() for labels in series(file)["bahefl_site_bytes_total"]}
    assert all(kind.isalpha() for kind in kinds)


def test_the_doctors_prediction_is_what_the_run_had(told: tuple[Run, list[dict[str, Any]], Path]) -> None:
    """An update's size, for this run's model and settings, within a part in a thousand."""
    run, _, _ = told
    p = predict(PARAMETERS, task_params(run.settings), run.settings.screening.groups)
    assert [finding.level for finding in reality(p, run.lines)] == [Level.OK]
    (line,) = run.lines
    assert line["bytes"]["update"] / len(line["committed"]) == pytest.approx(p.object_bytes["update"], rel=1e-3)  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_rays_workers_log_into_the_same_file(tmp_path: Path) -> None:
    """A simulation of the lesion application: whole lines of driver and sites, one run, and metrics of each."""
    environment = {**os.environ, logs.VARIABLE: f"json:{tmp_path / 'log'}", metrics.VARIABLE: str(tmp_path / "metrics")}
    command = [sys.executable, "-m", "bahefl_flwr", "experiment=smoke", "federation.rounds=1", f"run.root={tmp_path}"]
    command.append("federation.hello_timeout_s=300")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in (tmp_path / "log").read_text().splitlines()]
    assert len({line["run"] for line in lines}) == 1
    assert len({line["site"] for line in lines if line["logger"] == "bahefl_flwr.site"}) == 3
    assert any(line["message"].startswith("round 1 finalised: 3 of 3") for line in lines)
    assert len(list((tmp_path / "metrics").glob("*.prom"))) == 4
