"""Claims about `bahefl keys` and its help where no run is needed, or a run that is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from bahefl_flwr import console, federation
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.run_folder import RunFolder
from bahefl_flwr.settings import compose
from ledger_sites import ADMIN, CONFIG, running_chain
from lesion_run import tiny_run


@pytest.mark.parametrize("command", ["show", "renew"])
def test_an_ended_runs_keys_are_not_asked_of_its_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Exit 4 before anything is dialled; it says what reads the run instead."""
    run = str(tiny_run(tmp_path).path)
    monkeypatch.setattr(federation, "administer", pytest.fail)
    assert console.main(["keys", command, run]) == 4
    said = capsys.readouterr().err
    assert "the run is over and its ledger stopped" in said and f"bahefl audit {run}" in said


def test_keys_of_an_ended_run_on_a_ledger_elsewhere_are_not_renewed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That ledger is up, but no round follows."""
    folder = tiny_run(tmp_path)
    (folder.path / "config.yaml").write_text(compose(["ledger=rpc", "ledger.url=http://127.0.0.1:1"]).yaml())
    monkeypatch.setattr(federation, "administer", pytest.fail)
    assert console.main(["keys", "renew", str(folder.path)]) == 4
    assert "the run is over" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "renew"])
def test_what_is_no_run_folder_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Exit 2, as with `bahefl audit`."""
    assert console.main(["keys", command, str(tmp_path)]) == 2
    assert f"error: {tmp_path} is no run folder (a folder with" in capsys.readouterr().err


def test_a_run_that_starts_has_no_key_epoch_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first ceremony the ledger answers, and there is nothing to list."""
    folder: RunFolder = tiny_run(tmp_path, ended=False)
    with running_chain(tmp_path / "chain.sqlite") as chain:
        ledger = FederationLedger.deploy(Connection(chain.url, 20260, account=ADMIN), CONFIG)
        Identity.create_or_load(folder.path / "driver")
        address = federation.LedgerAddress(url=chain.url, chain_id=20260, contract=ledger.address)
        federation._write(folder.path, address)
        assert console.main(["keys", "show", str(folder.path)]) == 0
    assert capsys.readouterr().out == "no key epoch yet\n"


@pytest.mark.parametrize(
    ("command", "explained"),
    [
        ("keys", ()), ("keys show", ("RUN is",)), ("keys renew", ("RUN is",)),
        ("ledger", ()), ("ledger genesis", ("--output DIR", "needed")), ("ledger node-key", ("DIR is",)),
    ],
)  # fmt: skip
def test_the_help_explains_every_argument(capsys: pytest.CaptureFixture[str], command: str, explained: tuple[str, ...]) -> None:
    """No stray backslash, no option that is of no use here."""
    assert console.main([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in explained)
    assert "\\" not in said and "--install-completion" not in said
