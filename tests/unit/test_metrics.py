"""Claims about metrics: numbers outlive the processes that count, and never end a round."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bahefl_flwr import metrics
from bahefl_flwr.errors import RunFailed, SettingsError
from run_lines import line

SITE = "0x" + "11" * 20


def value(file: Path, name: str, **labels: str) -> float:
    """One series of a file."""
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def test_without_a_folder_nothing_is_kept() -> None:
    """Not even the library is needed."""
    driver = metrics.DriverMetrics("")
    with driver.run():
        driver.round(line(1))
    metrics.count_action("", SITE, metrics.Done(action="train", seconds=1, bytes={}))


def test_the_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingsError, match=r"pip install 'bahefl-flwr\[metrics\]'"):
        metrics.DriverMetrics(str(tmp_path))


def test_a_folder_that_cannot_be_written_is_told_at_the_start() -> None:
    """Not at the end of the first round."""
    with pytest.raises(SettingsError, match="BAHEFL_METRICS=/proc/nowhere cannot be written"):
        metrics.DriverMetrics("/proc/nowhere")


def test_counts_go_on_where_another_process_stopped(tmp_path: Path) -> None:
    """Two drivers, one after the other."""
    metrics.DriverMetrics(str(tmp_path)).round(line(1, attempt=1, excluded={"2": "replay"}))
    metrics.DriverMetrics(str(tmp_path)).round(line(2, abandoned="too few", excluded={"2": "replay"}))
    file = tmp_path / metrics.DRIVER_FILE
    assert value(file, "bahefl_rounds_total", outcome="finalised") == 1
    assert value(file, "bahefl_rounds_total", outcome="abandoned") == 1
    assert value(file, "bahefl_exclusions_total", reason="replay") == 2
    assert value(file, "bahefl_coordinators_replaced_total") == 1
    assert value(file, "bahefl_bytes_total", kind="update") == 5_600_000
    assert value(file, "bahefl_round") == 3
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_run_is_active_until_it_ends_and_its_error_is_counted(tmp_path: Path) -> None:
    """By the type of the error."""
    file, driver = tmp_path / metrics.DRIVER_FILE, metrics.DriverMetrics(str(tmp_path))
    with driver.run():
        assert value(file, "bahefl_run_active") == 1
    with pytest.raises(RunFailed), driver.run():
        raise RunFailed("nothing was finalised")
    assert value(file, "bahefl_run_active") == 0
    assert value(file, "bahefl_errors_total", error="RunFailed") == 1


def test_processes_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    """Flower may start two for one message."""
    done = metrics.Done(action="upload", seconds=0.5, round=3, bytes={"share-6-f046": 10, "aggregate-1": 0}, gas=7)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: metrics.count_action(str(tmp_path), SITE, done), range(40)))
    file = tmp_path / metrics.SITE_FILE.format(SITE)
    assert value(file, "bahefl_site_actions_total", action="upload", site=SITE) == 40
    assert value(file, "bahefl_site_bytes_total", kind="share") == 400
    assert value(file, "bahefl_site_gas_total") == 280
    assert value(file, "bahefl_site_round") == 3
    assert "aggregate" not in file.read_text()


def test_a_full_disk_costs_the_numbers_and_not_the_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder in the file's place stands for whatever the disk may do."""
    (tmp_path / metrics.DRIVER_FILE).mkdir()
    with caplog.at_level(logging.WARNING):
        metrics.DriverMetrics(str(tmp_path)).round(line(1))
    assert "cannot be kept" in caplog.text


def test_a_damaged_file_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever cut it off, the next round counts."""
    (tmp_path / metrics.DRIVER_FILE).write_text('bahefl_rounds_total{outcome="fina')
    with caplog.at_level(logging.WARNING):
        metrics.DriverMetrics(str(tmp_path)).round(line(1))
    assert "is damaged and begun anew" in caplog.text
    assert value(tmp_path / metrics.DRIVER_FILE, "bahefl_rounds_total", outcome="finalised") == 1
