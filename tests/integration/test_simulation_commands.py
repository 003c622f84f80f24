"""The commands on Flower's real Ray engine, with an app that only says hello."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

APPS = Path(__file__).parents[1] / "apps"


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m bahefl_flwr` on the tiny app with three sites, in a process group of its own."""
    command = [sys.executable, "-m", "bahefl_flwr", "--app", "tiny_app", "experiment=smoke", f"run.root={tmp_path}", *arguments]
    return subprocess.Popen(command, cwd=APPS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose ServerApp waits for five minutes."""
    process = start(tmp_path, "run.name=wait")
    assert process.stdout is not None
    assert any(line == "waiting\n" for line in process.stdout)
    yield process
    process.kill()
    process.communicate()


def test_both_apps_see_the_settings_and_the_run_folder(tmp_path: Path) -> None:
    """Sites in Ray's workers get every override, find the run's folder, and use one thread; the log stays quiet."""
    process = start(tmp_path, "train.lr=0.125")
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert [line for line in output.splitlines() if line.startswith("site")] == [
        f"site {site} lr 0.125 threads 1 same folder True" for site in range(3)
    ]
    assert "said by a worker" not in output + errors
    assert "lr: 0.125" in next(tmp_path.glob("*-smoke/config.yaml")).read_text()


@pytest.mark.slow
def test_an_error_of_the_server_app_is_one_message_and_its_exit_code(tmp_path: Path) -> None:
    """RunFailed in Flower's thread reaches the shell as exit code 11, without a traceback."""
    process = start(tmp_path, "run.name=fail")
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (11, "error: told to fail\n")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_and_everything_it_started(waiting: subprocess.Popen[str], number: int, code: int) -> None:
    """Ctrl-C and SIGTERM end the command within seconds, and Ray with it."""
    os.kill(waiting.pid, number)
    _, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == code
    assert errors == "stopped; finalised rounds are kept in the run folder; `bahefl resume FOLDER` goes on\n"
    assert not _still_there_after(10, waiting.pid)


@pytest.mark.slow
def test_a_sweep_runs_every_job_and_ends_with_a_table(tmp_path: Path) -> None:
    """A job that fails does not stop the next one; the file has a row for each, and the exit code is the first failure's."""
    process = start(tmp_path, "-m", "run.name=fail,fine", "train.lr=0.125")
    output, _ = process.communicate(timeout=200)
    with next(tmp_path.glob("*-sweep.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert process.returncode == 11
    assert [(row["run.name"], row["outcome"], row["error"]) for row in rows] == [
        ("fail", "failed", "told to fail"),
        ("fine", "failed", ""),
    ]
    assert rows[1]["folder"].endswith("-fine")
    assert "run.name  outcome" in output


def _still_there_after(seconds: float, session: int) -> list[str]:
    """Processes of the session that have not ended by then."""
    deadline = time.monotonic() + seconds
    while (left := _processes(session)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _processes(session: int) -> list[str]:
    listing = subprocess.run(["ps", "-o", "args=", "-s", str(session)], capture_output=True, text=True, check=False).stdout
    return [line for line in listing.splitlines() if "defunct" not in line]
