"""Claims about `bahefl store` on the command line: what is missing is said before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from bahefl_flwr import console
from bahefl_flwr.store import LocalStore, part_cid
from bahefl_flwr.storekeeping import Contract, note_served
from lesion_run import tiny_run

ONE, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
LEDGER = ("--rpc", "http://127.0.0.1:9", "--contract", ONE)


@pytest.mark.parametrize(
    "options",
    [(), ("--rpc", "http://127.0.0.1:9"), ("--contract", ONE), (*LEDGER, "--accounts", "file")],
    ids=["nobody", "no contract", "no ledger", "both"],
)
def test_a_store_is_served_to_somebody(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    """Never to everybody: either the ledger or a file says to whom."""
    assert console.main(["store", "serve", str(tmp_path / "store"), *options]) == 2
    assert "Say who may use the store" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_another_interface_needs_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way out is in the message."""
    (tmp_path / "accounts").write_text(ONE)
    accounts = ["--accounts", str(tmp_path / "accounts")]
    assert console.main(["store", "serve", str(tmp_path / "store"), *accounts, "--host", "0.0.0.0"]) == 2
    assert "give --certificate and --key, or --behind-proxy" in capsys.readouterr().err


def test_a_missing_accounts_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is admitted by mistake."""
    assert console.main(["store", "serve", str(tmp_path / "store"), "--accounts", str(tmp_path / "none")]) == 2
    assert f"cannot read the accounts in {tmp_path / 'none'}" in capsys.readouterr().err


def test_gc_needs_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without one everything would be nobody's."""
    LocalStore(tmp_path)
    assert console.main(["store", "gc", str(tmp_path)]) == 2
    assert "Name the ledger that refers to the store" in capsys.readouterr().err


def test_gc_refuses_what_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped folder is not made, and nothing in it is deleted."""
    assert console.main(["store", "gc", str(tmp_path / "stor"), *LEDGER]) == 2
    assert "is no store" in capsys.readouterr().err
    assert not (tmp_path / "stor").exists()


def test_gc_refuses_to_forget_a_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that serves another one as well."""
    LocalStore(tmp_path)
    note_served(tmp_path, Contract(chain_id=20260, address=OTHER))
    assert console.main(["store", "gc", str(tmp_path), *LEDGER]) == 2
    assert f"also serves contract {OTHER}" in capsys.readouterr().err


def test_gc_with_a_wrong_address_deletes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files are as they were."""
    (path := LocalStore(tmp_path)._path(part_cid(bytes(32)))).parent.mkdir()
    path.write_bytes(b"x")
    assert console.main(["store", "gc", str(tmp_path), "--rpc", "nowhere", "--contract", ONE, "--delete"]) == 2
    assert "--rpc needs http(s)://" in capsys.readouterr().err
    assert path.exists()


def test_gc_does_not_guess_about_a_store_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder outside of the run may be other runs' as well."""
    run = tiny_run(tmp_path).path
    (run / "ledger.json").write_text("{}")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("path: store", f"path: {tmp_path}/shared"))
    assert console.main(["store", "gc", str(run)]) == 2
    assert "is elsewhere and may be others' too" in capsys.readouterr().err
