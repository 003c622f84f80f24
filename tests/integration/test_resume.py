"""`bahefl resume`: a run that was cut off goes on at the round that was open; what cannot go on is told why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bahefl_flwr import console
from bahefl_flwr.run_folder import create, summarise
from bahefl_flwr.settings import compose
from run_lines import line

Said = pytest.CaptureFixture[str]


def cut_off(root: Path, *overrides: str) -> Path:
    """The folder of a run without a summary."""
    settings = compose(["experiment=smoke", *overrides])
    return create(root, settings.run.name, 1, settings.yaml()).path


def rounds(run: Path) -> list[int]:
    """Numbers of the rounds that its metrics tell as finalised, in order."""
    file = run / "metrics.jsonl"
    told = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return [each["round"] for each in told if each["finalised"]]


@pytest.mark.federation
@pytest.mark.timeout(900)
def test_a_simulation_that_was_killed_goes_on(tmp_path: Path) -> None:
    """kill -9 of the command and its ledger after the first of three rounds: all are finalised, and each is told once."""
    overrides = ["experiment=smoke", "federation.rounds=3", "train.local_epochs=1", f"run.root={tmp_path}"]
    command = [sys.executable, "-m", "bahefl_flwr", *overrides]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 400
    while not (found := list(tmp_path.glob("2*-smoke"))) or not rounds(found[0]):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (run,) = found
    assert not (run / "summary.json").exists()

    program = "from bahefl_flwr.console import bahefl; bahefl()"
    done = subprocess.run([sys.executable, "-c", program, "resume", str(run)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["outcome"], summary["rounds"]) == ("completed", 3)
    assert len(rounds(run)) == len(set(rounds(run))) == 3
    assert list(tmp_path.glob("2*-smoke")) == [run]


def test_a_completed_run_has_nothing_to_go_on_with(tmp_path: Path, capsys: Said) -> None:
    """Its summary says how it ended; a second end would replace it."""
    run = cut_off(tmp_path)
    summary = summarise([line(1)], experiment="smoke", seconds=1.0, test={})
    (run / "summary.json").write_text(json.dumps(summary))
    assert console.main(["resume", str(run)]) == 11
    assert "was completed" in capsys.readouterr().err


def test_a_deployment_goes_on_through_its_superlink(tmp_path: Path, capsys: Said) -> None:
    """Without its name there is nobody to ask."""
    url = "http://127.0.0.1:9"
    run = cut_off(
        tmp_path, "federation.admission=registrar", "ledger=hospitals", f"ledger.url={url}", f"ledger.contract=0x{'11' * 20}",
        "store=http", f"store.url={url}",
    )  # fmt: skip
    assert console.main(["resume", str(run)]) == 2
    assert "name its SuperLink with --superlink" in capsys.readouterr().err


def test_the_ledger_of_a_simulation_ends_with_it(tmp_path: Path, capsys: Said) -> None:
    """`--end` is for contracts that others wait on."""
    assert console.main(["resume", str(cut_off(tmp_path)), "--end"]) == 2
    assert "the ledger is the run's own" in capsys.readouterr().err
