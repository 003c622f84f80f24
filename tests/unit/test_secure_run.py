"""The frame of a run: what is said and left where it ends before its rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from bahefl_flwr.errors import LedgerUnreachable
from bahefl_flwr.secure_run import secure_run
from bahefl_flwr.settings import compose


def test_a_run_whose_ledger_is_away_says_how_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a run can go on: other commands that need the ledger are not told so."""
    settings = compose(["ledger=rpc", "ledger.url=http://127.0.0.1:9", "ledger.patience_s=1", f"run.root={tmp_path}"])
    with pytest.raises(LedgerUnreachable, match="is the ledger node running"):
        secure_run(Context(7, 0, {}, RecordDict(), settings.flat()), settings, lambda *_: pytest.fail("no ledger"))
    (run,) = tmp_path.glob("2*")
    assert f"`bahefl resume {run}` goes on with this run" in capsys.readouterr().out
    assert json.loads((run / "summary.json").read_text())["outcome"] == "failed"
