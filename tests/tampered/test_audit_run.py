"""A finished run whose files somebody changed: `bahefl audit` names the check, the round, the site and the object."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from audited_run import AuditedRun, topic
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.subject import open_subject
from bahefl_flwr.site.model import load_model, save_model
from bahefl_flwr.store.manifest import manifest_cid

STRANGER = "0x000000000000000000000000000000000000dEaD"


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder with its time of change and its bytes."""
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_an_honest_run_passes_every_check(audited: AuditedRun) -> None:
    """Nothing is found, nothing but an unasked recomputation is left out, and the report names the run's head."""
    code, report = audited.audit("--recompute")
    assert code == 0
    assert report["ok"] is True
    assert report["first_failure"] is None
    assert [c["status"] for c in report["checks"]] == ["passed"] * 15
    assert [c["number"] for c in report["checks"]] == list(range(1, 16))
    assert report["rounds"] == 2
    assert report["objects"] >= 2 * (3 + 1 + 2) + 9
    assert len(report["ledger"]["block_hash"]) == 66


def test_without_recompute_the_sum_is_said_to_be_unchecked(audited: AuditedRun) -> None:
    """Check 8 is skipped, not passed, and the report says how to have it done."""
    _, report = audited.audit()
    assert [(c["number"], c["skipped"]) for c in report["checks"] if c["status"] == "skipped"] == [(8, "add --recompute")]


def test_an_audit_changes_nothing_in_the_run_folder(audited: AuditedRun) -> None:
    """Not a byte, not a file, not a time of change: also not the database, which SQLite would tidy up."""
    before = contents(audited.folder)
    audited.audit("--recompute")
    assert contents(audited.folder) == before


def test_an_audit_imports_neither_torch_nor_tenseal_nor_flwr(audited: AuditedRun) -> None:
    """A fresh process that audits with recomputation has none of them."""
    script = (
        "import sys; from bahefl_flwr.console import main\n"
        f"code = main(['audit', {str(audited.folder)!r}, '--recompute'])\n"
        "heavy = {'torch', 'tenseal', 'flwr', 'ray', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every check holds" in done.stdout


# ---- 1 and 2: the chain and the contract


def chain_problems(audited: AuditedRun) -> list[str]:
    """What check 1 finds, without the other checks."""
    with open_subject(audited.folder) as subject:
        return list(subject.chain_problems)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE block SET header=(SELECT header FROM block WHERE number=5) WHERE number=6", "block 6 "),
        ("UPDATE block SET hash=x'00' WHERE number=6", "block 6: the stored hash"),
        ("DELETE FROM block WHERE number=6", "block 6 is missing"),
        ("DELETE FROM tx WHERE block=6 AND position=0", "block 6"),
        ("UPDATE tx SET raw=(SELECT raw FROM tx WHERE block=7) WHERE block=6", "block 6"),
        ("UPDATE tx SET sender=x'00' WHERE block=6", "block 6: the stored transactions"),
        ("UPDATE tx SET status=0 WHERE block=6", "block 6: the stored transactions"),
        ("UPDATE log SET data=x'00' WHERE block=6", "block 6: the stored events"),
        ("DELETE FROM log WHERE block=6", "block 6: the stored events"),
        ("UPDATE node SET value=x'00' WHERE key=(SELECT max(key) FROM node)", "1 state nodes"),
    ],
)
def test_check_1_finds_every_change_to_the_chain(audited: AuditedRun, statement: str, message: str) -> None:
    """Headers, transactions, outcomes, events, states: whatever is changed in the file, the block is named."""
    audited.sql(statement)
    assert any(message in problem for problem in chain_problems(audited))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tx SET sender=x'00' WHERE block=6",
        "UPDATE node SET value=CAST(substr(value,1,100)||x'ff'||substr(value,102) AS BLOB) WHERE length(value)>20000",
    ],
    ids=["a sender", "the contract's code"],
)
def test_a_file_that_makes_no_sense_is_read_as_its_transactions_make_it(audited: AuditedRun, statement: str) -> None:
    """What nobody could have written fails check 1; the other checks judge the chain executed again."""
    audited.sql(statement)
    code, report = audited.audit("--recompute")
    assert code == 10
    assert {c["number"]: c["status"] for c in report["checks"]} == {1: "failed", **dict.fromkeys(range(2, 16), "passed")}


def test_a_chain_that_cannot_even_be_read_fails_check_1_alone(audited: AuditedRun) -> None:
    """Not from the file, and not by executing it again: nothing else is judged, and the report says why."""
    audited.sql("UPDATE tx SET sender=x'00' WHERE block=6")
    audited.sql("UPDATE tx SET raw=x'00' WHERE block=7")
    code, report = audited.audit()
    assert code == 10
    assert [c["number"] for c in report["checks"] if c["status"] == "failed"] == [1]
    assert all(c["skipped"] == "the chain cannot be read" for c in report["checks"][2:])


def test_check_1_finds_blocks_cut_off_only_by_the_head(audited: AuditedRun) -> None:
    """A chain that was cut short is a chain: the report's block hash is what tells, so that it can be compared."""
    whole = audited.audit()[1]["ledger"]["block_hash"]
    with closing(sqlite3.connect(audited.folder / "ledger.sqlite")) as database, database:
        last = database.execute("SELECT max(number) FROM block").fetchone()[0]
        for table, column in (("block", "number"), ("tx", "block"), ("log", "block")):
            database.execute(f"DELETE FROM {table} WHERE {column}=?", (last,))
    assert audited.audit()[1]["ledger"]["block_hash"] != whole


def test_a_round_that_never_was_is_bad_usage(audited: AuditedRun) -> None:
    """Neither one after the last nor one before the first."""
    assert audited.audit("--round", "3")[0] == 2
    assert audited.audit("--round", "-1")[0] == 2
    assert audited.audit("--round", "0")[0] == 2


def test_check_2_finds_another_contract(audited: AuditedRun) -> None:
    """The run's files point to an address without our code: nothing else is judged, and that is said."""
    path = audited.folder / "ledger.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "contract": STRANGER}))
    code, report = audited.audit()
    assert code == 10
    assert [c["number"] for c in report["checks"] if c["status"] == "failed"] == [2]
    assert all(c["skipped"] == "the contract is not ours" for c in report["checks"][2:])


# ---- 3, 4, 9, 11, 12: events


def test_check_3_finds_an_act_of_a_stranger(audited: AuditedRun) -> None:
    """An update committed under an address that never registered."""
    audited.change_log(audited.logs("UpdateCommitted")[0], "topic2", topic(STRANGER))
    (first, second) = audited.failed()[3]
    assert (first["round"], first["site"]) == (1, None)
    assert STRANGER in first["message"]
    assert "signed by" in second["message"]


def test_check_4_finds_a_second_commitment(audited: AuditedRun) -> None:
    """A site that commits twice in a round is named."""
    row = audited.logs("UpdateCommitted")[1]
    audited.repeat_log(row)
    findings = audited.failed()[4]
    assert any(f["message"] == "committed more than once" and f["round"] == 1 and f["site"] is not None for f in findings)


def test_check_9_finds_a_missing_vote(audited: AuditedRun) -> None:
    """An aggregate verified with fewer votes than a majority, and a ledger that counts another number."""
    audited.drop_log(audited.logs("Attested")[3])
    messages = [f["message"] for f in audited.failed()[9]]
    assert any("the ledger counts votes" in m for m in messages)
    assert any("1 votes of 3 sites, 2 are a majority" in m for m in messages)


def test_check_11_finds_a_share_released_too_early(audited: AuditedRun) -> None:
    """A key holder whose vote is gone released its share of an aggregate it never checked."""
    released = audited.logs("ShareReleased")[0]
    vote = next(row for row in audited.logs("Attested") if row["topic2"] == released["topic2"])
    audited.drop_log(vote)
    finding = audited.failed()[11][0]
    assert finding["round"] == 1
    assert finding["object"].startswith("bafyrei")
    assert "before its own vote" in finding["message"]


def test_check_12_finds_a_model_without_a_majority(audited: AuditedRun) -> None:
    """Confirmations are missing, so the model that the round ended with is nobody's."""
    for row in audited.logs("Confirmed")[:2]:
        audited.drop_log(row)
    assert any("confirmations of 2 needed" in f["message"] and f["round"] == 1 for f in audited.failed()[12])


def test_check_10_finds_a_layer_that_is_not_the_next(audited: AuditedRun) -> None:
    """A changed onion layer breaks the owner's onion, the round's entropy, and with it everything drawn from it."""
    row = audited.logs("LayerRevealed")[0]
    audited.change_log(row, "data", row["data"][:-1] + bytes([row["data"][-1] ^ 1]))
    findings = audited.failed()[10]
    assert any("hash onion" in f["message"] and f["round"] == 1 and f["site"] is not None for f in findings)
    assert any("entropy" in f["message"] for f in findings)


def test_check_10_finds_a_coordinator_that_was_not_elected(audited: AuditedRun) -> None:
    """Round 2 opened with another site than the reveals of round 1 elect."""
    _, second = audited.logs("RoundOpened")
    other = next(row["topic2"] for row in audited.logs("UpdateCommitted") if row["topic2"] != second["topic2"])
    audited.change_log(second, "topic2", other)
    assert any(f["round"] == 2 and "the reveals elect site" in f["message"] for f in audited.failed()[10])


def test_check_14_finds_a_step_not_taken(audited: AuditedRun) -> None:
    """A committee member never confirmed the key that is in use."""
    audited.drop_log(audited.logs("CeremonyStep")[-1])
    assert any("did not take step confirm" in f["message"] for f in audited.failed()[14])


# ---- 5: the store


def test_check_5_finds_a_lost_update(audited: AuditedRun) -> None:
    """The manifest or the bytes of an included update are gone: its round, its site and its CID are named first."""
    # Manifests of sealed objects, which have one part, are smaller.
    cid = next(f.name for f in audited.objects() if f.name.startswith("bafyrei") and f.stat().st_size > 180)
    audited.object(cid).unlink()
    code, report = audited.audit("--recompute")
    assert code == 10
    assert report["first_failure"]["object"] == cid
    assert report["first_failure"]["address"].startswith("0x")


def test_check_5_finds_a_lost_answer_about_sketches(case: Case, audited: AuditedRun) -> None:
    """A key holder's part of the openings by which a round's updates were judged is gone; nobody outside could read it anyway."""
    part = case.evidence.rounds[1].sketches[0][0]
    audited.object(manifest_cid(part.digest)).unlink()
    (finding,) = audited.failed()[5]
    assert (finding["round"], finding["site"], finding["object"]) == (2, part.member, manifest_cid(part.digest))
    assert finding["message"].startswith("sketch: ")


# ---- 13: the models


def test_check_13_finds_an_exchanged_final_model(audited: AuditedRun) -> None:
    """A site's model file with one weight changed, its own digest put right, is not the model that was confirmed."""
    path = audited.folder / "sites" / "001" / "model.safetensors"
    model = load_model(path)
    model.arrays[0].flat[5] += 0.25
    save_model(model, path)
    (finding,) = audited.failed()[13]
    assert (finding["round"], "sites/001" in finding["message"]) == (2, True)


def test_check_13_finds_a_wrong_summary(audited: AuditedRun) -> None:
    """The digest that the run's summary names is not the last confirmed one."""
    path = audited.folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["ledger"]["model_digest"] = "00" * 32
    path.write_text(json.dumps(summary))
    assert "summary.json" in audited.failed()[13][0]["message"]


def test_check_13_finds_a_wrong_chosen_model(audited: AuditedRun) -> None:
    """The model that the summary calls chosen is not the one after the round it names."""
    path = audited.folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["chosen"] = {"round": 1, "model_digest": summary["ledger"]["model_digest"]}
    path.write_text(json.dumps(summary))
    assert "as the chosen model, has" in audited.failed()[13][0]["message"]


def test_the_model_of_an_earlier_round_is_proved_too(audited: AuditedRun) -> None:
    """--model takes the best round's model, and fails if it claims another round."""
    best = audited.folder / "sites" / "000" / "best.safetensors"
    assert audited.failed("--model", str(best)) == {}
    save_model(replace(load_model(best), round=2), best)
    assert str(best) in audited.failed("--model", str(best))[13][0]["message"]


def test_an_audit_says_what_it_proved_of_a_model_file(audited: AuditedRun) -> None:
    """The round and digest that the ledger names, another file's claim as such, and nothing of a round that was not judged."""
    best = audited.folder / "sites" / "000" / "best.safetensors"
    model = load_model(best)
    said = {"file": str(best), "round": 1, "digest": model.digest().hex()}
    assert audited.audit("--model", str(best))[1]["model"] == {**said, "status": "named"}
    assert audited.audit("--model", str(best), "--round", "2")[1]["model"] == {**said, "status": "not compared"}
    save_model(replace(model, round=2), best)
    assert audited.audit("--model", str(best))[1]["model"] == {**said, "round": 2, "status": "other"}


def test_a_model_file_is_compared_when_it_is_given(audited: AuditedRun, tmp_path: Path) -> None:
    """--model takes a copy of the final model, and fails on any other file."""
    copy = tmp_path / "model.safetensors"
    save_model(load_model(audited.folder / "sites" / "000" / "model.safetensors"), copy)
    assert audited.failed("--model", str(copy)) == {}
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x7f")
    assert str(copy) in audited.failed("--model", str(copy))[13][0]["message"]
    copy.write_bytes(b"\xff" * 64)
    assert audited.audit("--model", str(copy))[0] == 5


@pytest.mark.parametrize("other", [b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}", b""])
def test_check_13_finds_a_site_file_that_is_no_model(audited: AuditedRun, other: bytes) -> None:
    """Garbage, or a file that another program wrote: the site's folder is named, and all other checks are done."""
    (audited.folder / "sites" / "001" / "model.safetensors").write_bytes(other)
    failed = audited.failed()
    assert list(failed) == [13]
    assert "sites/001" in failed[13][0]["message"]


def test_check_13_is_not_done_where_there_is_nothing_to_compare(audited: AuditedRun) -> None:
    """Without a summary and without a model file it has not passed."""
    (audited.folder / "summary.json").unlink()
    for path in audited.folder.glob("sites/*/*.safetensors"):
        path.unlink()
    check = audited.audit()[1]["checks"][12]
    assert check["status"] == "skipped"
    assert check["skipped"].startswith("not done: ")


def test_what_a_killed_node_left_beside_its_file_is_read(audited: AuditedRun, tmp_path: Path) -> None:
    """SQLite's write-ahead log may hold the last blocks: it is part of the chain, and is neither lost nor tidied up."""
    file = audited.folder / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("DELETE FROM log WHERE block=6")
        database.commit()
        shutil.copytree(audited.folder, tmp_path / "killed")
    killed = AuditedRun(tmp_path / "killed")
    before = contents(killed.folder)
    assert "ledger.sqlite-wal" in before
    assert any("block 6: the stored events" in problem for problem in chain_problems(killed))
    assert contents(killed.folder) == before
