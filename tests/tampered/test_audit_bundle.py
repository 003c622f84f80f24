"""Bundles: one file that verifies elsewhere, equal for equal runs; whatever somebody makes of it is refused or found."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from audited_run import AuditedRun
from bahefl_flwr import console
from bahefl_flwr.audit.auditing import export
from bahefl_flwr.audit.bundle import Bundle
from bahefl_flwr.errors import BaheflError, StoreError

Entries = dict[str, bytes]


@pytest.fixture(scope="module")
def bundle(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the run."""
    path = tmp_path_factory.mktemp("bundle") / "run.zip"
    export(whole_run, path)
    return path


def entries(bundle: Path) -> Entries:
    """What is in a bundle."""
    with zipfile.ZipFile(bundle) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(path: Path, content: Entries, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file with these entries."""
    with zipfile.ZipFile(path, "w", compression=compression) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def test_a_bundle_verifies_without_the_run(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """Every check is carried out on the file alone, to the same blocks and the same verdict as in the run folder."""
    _, of_folder = audited.audit("--recompute")
    copy = shutil.copy(bundle, tmp_path / "elsewhere.zip")
    shutil.rmtree(audited.folder)
    code, report = audited.audit("--recompute", run=copy)
    assert code == 0
    assert report == {**of_folder, "run": report["run"]}


def test_export_prints_the_digest_of_the_file(whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is the file's SHA-256, so that it can be told over another channel."""
    path = tmp_path / "run.zip"
    assert console.main(["audit", "export", str(whole_run), str(path)]) == 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["run.zip"]


def test_equal_runs_make_equal_bundles(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """Byte for byte, also from a copy of the run folder made at another time, and from the bundle itself."""
    copy = tmp_path / audited.folder.name
    export(audited.folder, copy.with_suffix(".1"))
    export(audited.folder, copy.with_suffix(".2"))
    assert copy.with_suffix(".1").read_bytes() == copy.with_suffix(".2").read_bytes()
    again = tmp_path / "again.zip"
    export(bundle, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_a_bundle_holds_no_secret_and_no_model(whole_run: Path, bundle: Path) -> None:
    """No file of a site or of the driver is in it, whole or in part: only the chain and what was in the store."""
    names = entries(bundle).keys() - {"about.json", "chain.jsonl"}
    stored = {p.name for p in (whole_run / "store" / "objects").rglob("*") if p.is_file()}
    assert {name.removeprefix("objects/") for name in names} <= stored
    whole = bundle.read_bytes()
    for path in (p for p in whole_run.rglob("*") if p.suffix in (".key", ".safetensors")):
        assert path.read_bytes()[-40:] not in whole


def test_an_object_altered_in_a_bundle_is_found(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """With a zip file that is whole: the check that fails is that of the object."""
    content = entries(bundle)
    name = next(n for n in content if n.startswith("objects/bafyrei"))
    content[name] = content[name][:-1] + b"\0"
    code, report = audited.audit(run=written(tmp_path / "b.zip", content))
    assert (code, report["first_failure"]["check"]) == (10, 5)
    assert report["first_failure"]["object"] == name.removeprefix("objects/")


def test_a_byte_altered_in_the_file_is_found(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """Without a new check sum in the zip file: the same check, or the bundle is refused as a whole."""
    data = bytearray(bundle.read_bytes())
    data[data.index(b"objects/bafkrei") + 200] ^= 1
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    code, report = audited.audit(run=path)
    assert (code, report["first_failure"]["check"]) == (10, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:6], *lines[7:]], "block 6 does not come out as its header says"),
        (lambda lines: [*lines[:6], lines[7], lines[6], *lines[8:]], "block 6"),
        (lambda lines: lines[1:], "block 0 does not come out"),
        (lambda lines: [*lines[:6], b"{}", *lines[7:]], "block 6 of the bundle's chain is not in its form"),
        (lambda lines: [*lines[:6], lines[6].replace(b'ns":["', b'ns":["00'), *lines[7:]], "block 6, transaction 0"),
        (lambda lines: lines[:0], "the chain has no block"),
    ],
)
def test_a_changed_chain_is_found(
    audited: AuditedRun, bundle: Path, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    """A block left out, exchanged, or altered: check 1 names it."""
    content = entries(bundle)
    content["chain.jsonl"] = b"\n".join([*change(content["chain.jsonl"].splitlines()), b""])
    code, report = audited.audit(run=written(tmp_path / "b.zip", content))
    assert code == 10
    assert message in report["checks"][0]["findings"][0]["message"]


@pytest.mark.parametrize(
    "name", ["../escaped", "/etc/escaped", "objects/../../escaped", "objects/b", "other.json", "objects/" + "b" * 100]
)
def test_an_entry_that_is_not_ours_refuses_the_whole_bundle(audited: AuditedRun, bundle: Path, tmp_path: Path, name: str) -> None:
    """Also names that would leave a folder they were unpacked to; nothing is ever unpacked."""
    path = written(tmp_path / "b.zip", {**entries(bundle), name: b"x"})
    assert audited.audit(run=path)[0] == 5
    assert [p.name for p in tmp_path.iterdir() if p.name != "run"] == ["b.zip"]


def test_compressed_entries_are_refused(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """A few bytes that become gigabytes have no place in a bundle."""
    assert audited.audit(run=written(tmp_path / "b.zip", entries(bundle), compression=zipfile.ZIP_DEFLATED))[0] == 5


def test_an_object_longer_than_any_object_is_refused(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """Before it is read."""
    path = written(tmp_path / "b.zip", {**entries(bundle), "objects/b" + "a" * 58: bytes((1 << 20) + 2)})
    assert audited.audit(run=path)[0] == 5


@pytest.mark.parametrize(
    "about", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format":1,"run":1,"chain_id":1,"contract":"","model":""}', b"[" * 60000]
)
def test_a_bundle_that_does_not_say_what_it_is_is_refused(
    audited: AuditedRun, bundle: Path, tmp_path: Path, about: bytes
) -> None:
    """In this version's format, every field of its type."""
    assert audited.audit(run=written(tmp_path / "b.zip", {**entries(bundle), "about.json": about}))[0] == 5


def test_an_entry_twice_is_refused(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """Which of the two counts would be a matter of the reader."""
    path = shutil.copy(bundle, tmp_path / "b.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("about.json", json.dumps({}))
    assert audited.audit(run=path)[0] == 5


def test_random_damage_is_refused_or_found(bundle: Path, tmp_path: Path) -> None:
    """Bytes changed anywhere in the file's index or its first entries: an error of ours or another content, never a crash."""
    chance, good = random.Random(7), bundle.read_bytes()
    start = good.rindex(b"PK\x01\x02") - 2000
    path = tmp_path / "b.zip"
    for _ in range(300):
        data = bytearray(good)
        at = chance.choice([chance.randrange(400), chance.randrange(start, len(good))])
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            with Bundle.open(path) as damaged:
                for _ in damaged.blocks():
                    pass
                assert damaged.object("none") is None
        except BaheflError:
            continue


def test_a_cut_bundle_is_told_as_such(
    audited: AuditedRun, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that begins as one is not called no bundle: its end did not arrive."""
    path = tmp_path / "b.zip"
    path.write_bytes(bundle.read_bytes()[:-2000])
    assert audited.audit(run=path)[0] == 5
    assert "begins as a bundle but is cut or damaged" in capsys.readouterr().err


def test_an_address_of_a_bundle_in_lower_case_accuses_nobody(audited: AuditedRun, bundle: Path, tmp_path: Path) -> None:
    """What is no address is refused; letter case is no matter."""
    content = entries(bundle)
    about = json.loads(content["about.json"])
    for contract, code in ((about["contract"].lower(), 0), ("0x12", 5)):
        content["about.json"] = json.dumps({**about, "contract": contract}).encode()
        assert audited.audit(run=written(tmp_path / "b.zip", content))[0] == code


def test_an_export_overwrites_nothing(whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a file nor a folder, and each costs one line."""
    path = tmp_path / "important"
    path.write_text("mine")
    for there in (path, tmp_path):
        assert console.main(["audit", "export", str(whole_run), str(there)]) == 5
        assert capsys.readouterr().err.startswith(f"error: {there} is ")
    assert path.read_text() == "mine"


def test_a_damaged_chain_is_not_exported(audited: AuditedRun, tmp_path: Path) -> None:
    """A bundle of it would only spread the damage."""
    audited.sql("DELETE FROM log WHERE block=6")
    assert console.main(["audit", "export", str(audited.folder), str(tmp_path / "b.zip")]) == 4
    assert not (tmp_path / "b.zip").exists()


def test_a_lost_object_is_lost_in_the_bundle_too(audited: AuditedRun, tmp_path: Path) -> None:
    """An export neither hides nor invents anything: the audit of the bundle finds what that of the run finds."""
    # The largest is part of an update; what an outsider cannot read, the audit does not ask for.
    max(audited.objects(), key=lambda p: p.stat().st_size).unlink()
    export(audited.folder, tmp_path / "b.zip")
    _, of_folder = audited.audit()
    code, of_bundle = audited.audit(run=tmp_path / "b.zip")
    assert code == 10
    assert [c["number"] for c in of_bundle["checks"] if c["findings"]] == [5]
    assert len(of_bundle["checks"][4]["findings"]) == len(of_folder["checks"][4]["findings"]) == 1


def test_a_bundle_that_cannot_be_written_is_an_error_of_ours(whole_run: Path, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    with pytest.raises(StoreError, match="cannot write the bundle"):
        export(whole_run, tmp_path / "no such folder" / "b.zip")
