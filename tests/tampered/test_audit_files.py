"""A run whose own files make no sense, are missing, or are in use: the audit says so in one line, and blames nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from audited_run import AuditedRun
from bahefl_flwr import console
from bahefl_flwr.audit import auditing
from bahefl_flwr.audit.objects import Access
from bahefl_flwr.ledger.node import NodeProcess


def say(audited: AuditedRun, name: str, **changes: object) -> None:
    """Change what a JSON file of the run says."""
    path = audited.folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(audited: AuditedRun, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Exit code and the one line of an audit that cannot be made."""
    code = audited.audit(*options)[0]
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return code, said


def test_an_address_in_lower_case_accuses_nobody(audited: AuditedRun) -> None:
    """Letter case in ledger.json is no fault of a site."""
    say(audited, "ledger.json", contract=json.loads((audited.folder / "ledger.json").read_text())["contract"].lower())
    assert audited.failed() == {}


@pytest.mark.parametrize("changes", [{"contract": "0x12"}, {"contract": 5}, {"chain_id": "x"}, {"chain_id": []}])
def test_a_ledger_file_that_makes_no_sense_is_one_line(
    audited: AuditedRun, capsys: pytest.CaptureFixture[str], changes: dict[str, object]
) -> None:
    """What is no address and no chain is refused with the file's name."""
    say(audited, "ledger.json", **changes)
    code, said = refusal(audited, capsys)
    assert (code, "ledger.json" in said) == (4, True)


def test_check_1_finds_another_chain_than_the_file_names(audited: AuditedRun) -> None:
    """ledger.json and the database disagree, and both numbers are said."""
    say(audited, "ledger.json", chain_id=1)
    failed = audited.failed()
    assert list(failed) == [1]
    assert "names chain 1," in failed[1][0]["message"]


@pytest.mark.parametrize("text", ["[1]", '{"ledger": []}', "5", "[" * 60000])
def test_a_summary_that_makes_no_sense_is_one_line(audited: AuditedRun, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """JSON, but not a summary."""
    (audited.folder / "summary.json").write_text(text)
    code, said = refusal(audited, capsys)
    assert (code, "summary.json" in said) == (5, True)


def test_an_endpoint_that_is_none_is_bad_usage(audited: AuditedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """As for ledger.url."""
    code, said = refusal(audited, capsys, "--rpc", "nonsense")
    assert (code, "--rpc needs http" in said) == (2, True)


def test_a_missing_database_is_said_at_once(audited: AuditedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The endpoint of a run that had its own chain is gone with the run: nobody waits for it."""
    (audited.folder / "config.yaml").write_text("store: {path: store}\nledger: {kind: embedded}\n")
    (audited.folder / "ledger.sqlite").unlink()
    code, said = refusal(audited, capsys)
    assert (code, f"{audited.folder / 'ledger.sqlite'} is missing" in said) == (4, True)


# ---- the page


def test_every_documented_command_is_understood(
    audited: AuditedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/audit.md as they stand there reach the audit with what they name."""
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\| `bahefl (audit .*?)` \|", page, re.MULTILINE)
    asked: list[dict[str, object]] = []
    report = auditing.audit(audited.folder)
    monkeypatch.setattr(auditing, "audit", lambda _run, **options: asked.append(options) or report)
    monkeypatch.setattr(auditing, "export", lambda _run, file, _access: file.write_text("bundle") and "digest")
    for command in commands:
        assert console.main(command.replace("FILE", str(audited.folder / "file")).split()) == 0, command
    usual = {"access": Access()}
    named = [next((o for o, v in each.items() if v and v != usual.get(o)), "") for each in asked]
    assert named == ["", "recompute", "round", "model", "", "rpc", "access"]
    assert "digest" in capsys.readouterr().out


# ---- where the audit cannot be made


def test_a_damaged_database_is_told_as_such(audited: AuditedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no database at all is an error of the ledger, not a failed check."""
    (audited.folder / "ledger.sqlite").write_bytes(b"\0" * 4096)
    code, said = refusal(audited, capsys)
    assert (code, str(audited.folder / "ledger.sqlite") in said) == (4, True)


def test_a_run_that_is_still_going_on_is_refused(audited: AuditedRun) -> None:
    """While a node has the database open it is not read behind its back; its endpoint can be asked instead."""
    with NodeProcess(audited.folder / "ledger.sqlite") as node:
        assert audited.audit()[0] == 4
        code, report = audited.audit("--rpc", node.url, "--recompute")
    assert code == 0
    assert [c["number"] for c in report["checks"] if c["status"] == "skipped"] == [1]


def test_a_run_whose_ledger_is_elsewhere_is_audited_there(audited: AuditedRun, tmp_path: Path) -> None:
    """Without a chain of its own (ledger=rpc) the endpoint that the run names is asked; a bundle of it would prove nothing."""
    (audited.folder / "ledger.sqlite").rename(tmp_path / "elsewhere.sqlite")
    (audited.folder / "config.yaml").write_text("store: {path: store}\nledger: {kind: rpc}\n")
    path = audited.folder / "ledger.json"
    with NodeProcess(tmp_path / "elsewhere.sqlite") as node:
        path.write_text(json.dumps({**json.loads(path.read_text()), "url": node.url}))
        assert audited.failed("--recompute") == {}
        assert console.main(["audit", "export", str(audited.folder), str(tmp_path / "bundle.zip")]) == 4
