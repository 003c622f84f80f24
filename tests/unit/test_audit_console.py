"""The `bahefl` command before any work is done: help, usage errors, one line for every error, nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bahefl_flwr import console, errors


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["nope"], 2, "No such command 'nope'"),
        (["audit"], 2, "Usage: bahefl audit"),
        (["audit", "--round", "x", "run"], 2, "Invalid value for '--round'"),
        (["audit", "--format", "xml", "run"], 2, "'xml' is not one of"),
        (["audit", "--no-such-option"], 2, "No such option"),
        (["audit", "export", "run"], 2, "Missing argument 'FILE'"),
        (["audit", "/nowhere"], 2, "error: /nowhere is no run folder"),
        (["audit", "export", "/nowhere", "file"], 2, "error: /nowhere is no run folder"),
    ],
)
def test_bad_usage_costs_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], code: int, message: str
) -> None:
    """Whatever is misspelt, missing or not there: what was wrong, and no traceback."""
    assert console.main(argv) == code
    said = capsys.readouterr()
    assert message in said.err + said.out
    assert "Traceback" not in said.err


def test_every_error_of_the_package_becomes_a_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that raises any error of errors.py ends with that error's code and message."""
    for kind in (errors.LedgerError, errors.StoreError, errors.KeysError, errors.AuditFailed, errors.RunFailed):

        def raising(*, args: list[str], prog_name: str, kind: type[errors.BaheflError] = kind) -> None:
            raise kind("what was wrong")

        monkeypatch.setattr(console, "app", raising)
        assert console.main(["audit"]) == kind.exit_code
        assert capsys.readouterr().err == "error: what was wrong\n"


def test_verbose_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever has to find the place."""
    assert console.main(["--verbose", "audit", "/nowhere"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`bahefl --help` lists them and the exit codes."""
    assert console.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in console.COMMANDS)
    assert "10 an" in said


def test_the_help_of_audit_shows_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """RUN and every option of the default, and the other commands."""
    assert console.main(["audit", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("RUN", "--round", "--recompute", "--model", "--rpc", "--format", "export"))


def test_help_imports_nothing_heavy() -> None:
    """Asking for help, of everything, imports no command's libraries."""
    script = (
        "import sys; from bahefl_flwr import console\n"
        "for name in console.COMMANDS: console.main([name, '--help'])\n"
        "heavy = {'torch', 'tenseal', 'web3', 'flwr', 'numpy', 'eth', 'ray'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing folder without a ledger, and a file that is no bundle, are bad usage as well."""
    (tmp_path / "file").write_bytes(b"not a bundle")
    assert console.main(["audit", str(tmp_path)]) == 2
    assert console.main(["audit", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("is no run folder") == 2
