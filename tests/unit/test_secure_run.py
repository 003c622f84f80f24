"""The frame of a run: what is said and left where it ends before its rounds."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from bahefl_flwr.errors import LedgerUnreachable
from bahefl_flwr.federation import Federation
from bahefl_flwr.run_folder import RoundLine, RunFolder
from bahefl_flwr.secure_run import Ending, OnRound, secure_run
from bahefl_flwr.settings import compose
from run_lines import line


def test_a_run_whose_ledger_is_away_says_how_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a run can go on: other commands that need the ledger are not told so."""
    settings = compose(["ledger=rpc", "ledger.url=http://127.0.0.1:9", "ledger.patience_s=1", f"run.root={tmp_path}"])
    with pytest.raises(LedgerUnreachable, match="is the ledger node running"):
        secure_run(Context(7, 0, {}, RecordDict(), settings.flat()), settings, lambda *_: pytest.fail("no ledger"))
    (run,) = tmp_path.glob("2*")
    assert f"`bahefl resume {run}` goes on with this run" in capsys.readouterr().out
    assert json.loads((run / "summary.json").read_text())["outcome"] == "failed"


def test_the_summary_covers_the_drivers_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A driver that was killed left a round: the next one shows it, counts it, and adds the seconds that it took."""
    settings = compose([f"run.root={tmp_path}"])
    context = Context(7, 0, {}, RecordDict(), settings.flat())

    def killed(_: Federation, on_round: OnRound, __: Sequence[RoundLine]) -> Ending:
        time.sleep(1)
        on_round(line(1, score=0.7, epoch=1))
        raise SystemExit

    def goes_on(_: Federation, on_round: OnRound, before: Sequence[RoundLine]) -> Ending:
        assert [each["round"] for each in before] == [1]
        on_round(line(2, score=0.6, epoch=1))
        tested = {"sites": 2, "of": 4}
        return Ending(test={"dice": 0.5}, tested=tested, final_model="ab", chosen_model="ab", best_round=1)

    with pytest.raises(SystemExit):
        secure_run(context, settings, killed)
    capsys.readouterr()
    secure_run(context, settings, goes_on)
    (run,) = tmp_path.glob("2*")
    first, second = RunFolder(path=run).metrics()
    summary = RunFolder(path=run).summary()
    assert summary and (summary["rounds"], summary["best"] and summary["best"]["round"]) == (2, 1)
    assert 1 < first["elapsed"] < second["elapsed"] <= summary["seconds"]
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:4]] == ["1", "2"]
    assert "The figures on the test parts are of 2 of 4 sites" in (run / "report.html").read_text()
