"""A copy of a finished run: how tests spoil its files, and what an audit then says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from bahefl_flwr import console
from bahefl_flwr.audit.auditing import judge
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.ledger.connection import signature
from bahefl_flwr.ledger.deployment import artifact
from federation_run import flip_one_byte

_TOPICS = {e["name"]: keccak(text=signature(e)) for e in artifact()["abi"] if e["type"] == "event"}


@dataclass(frozen=True)
class AuditedRun:
    """A run folder that a test may spoil."""

    folder: Path

    def audit(self, *options: str, run: Path | None = None) -> tuple[int, dict[str, Any]]:
        """Exit code and report of `bahefl audit`."""
        with pytest.MonkeyPatch.context() as patch:
            said: list[str] = []
            patch.setattr("typer.echo", said.append)
            code = console.main(["audit", str(run or self.folder), "--format", "json", *options])
        return code, json.loads(said[0]) if said else {}

    def failed(self, *options: str) -> dict[int, list[dict[str, Any]]]:
        """Findings by the number of their check, of those that failed; the exit code must agree."""
        code, report = self.audit(*options)
        found = {c["number"]: c["findings"] for c in report["checks"] if c["status"] == "failed"}
        assert code == (10 if found else 0)
        assert report["ok"] is not bool(found)
        return found

    def sql(self, statement: str, *values: object) -> None:
        """Change the chain's file behind everybody's back."""
        with closing(sqlite3.connect(self.folder / "ledger.sqlite")) as database, database:
            assert database.execute(statement, values).rowcount > 0

    def logs(self, event: str) -> list[sqlite3.Row]:
        """The stored events of a name, in order."""
        with closing(sqlite3.connect(self.folder / "ledger.sqlite")) as database:
            database.row_factory = sqlite3.Row
            return database.execute("SELECT * FROM log WHERE topic0=? ORDER BY block, position", (_TOPICS[event],)).fetchall()

    def change_log(self, row: sqlite3.Row, column: str, value: bytes) -> None:
        """Give one stored event another topic, or other data."""
        self.sql(f"UPDATE log SET {column}=? WHERE block=? AND position=?", value, row["block"], row["position"])

    def repeat_log(self, row: sqlite3.Row) -> None:
        """Store an event a second time, at the end of its block."""
        values = [row[name] for name in row.keys()]  # noqa: SIM118
        values[1] += 1000
        self.sql(f"INSERT INTO log VALUES ({','.join('?' * len(values))})", *values)

    def drop_log(self, row: sqlite3.Row) -> None:
        """Remove a stored event."""
        self.sql("DELETE FROM log WHERE block=? AND position=?", row["block"], row["position"])

    def objects(self) -> Iterator[Path]:
        """Every file of the store."""
        return (p for p in sorted((self.folder / "store" / "objects").rglob("*")) if p.is_file())

    def object(self, cid: str) -> Path:
        """The file of one object or part."""
        return next(p for p in self.objects() if p.name == cid)

    def spoil(self, cid: str) -> None:
        """Exchange the last byte of an object's file."""
        flip_one_byte(self.object(cid))


def topic(address: str) -> bytes:
    """An address as an indexed argument of an event."""
    return bytes.fromhex(address.removeprefix("0x")).rjust(32, b"\0")


def failures(case: Case) -> dict[int, tuple[Finding, ...]]:
    """Findings by the number of their check."""
    return {r.number: r.findings for r in judge(case, "run").results if r.findings}


def with_round(case: Case, number: int, **changes: Any) -> Case:
    """The case with other facts about a round: of its record, or of its evidence."""
    old = case.evidence.rounds[number - 1]
    own = {name: value for name, value in changes.items() if name in RoundEvidence.__slots__}
    record = replace(old.record, **{name: value for name, value in changes.items() if name not in own})
    rounds = tuple(replace(old, **{"record": record, **own}) if r is old else r for r in case.evidence.rounds)
    return replace(case, evidence=replace(case.evidence, rounds=rounds))
