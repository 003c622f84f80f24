"""What an audit came to, as text for people and as JSON for programs (docs/audit.md). Nothing is checked here."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.errors import AuditFailed

FORMAT = 1
_WIDTH = 110
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check's outcome. `skipped`: why it was not done, "" if it was."""

    number: int
    title: str
    meaning: str
    remedy: str
    skipped: str
    findings: tuple[Finding, ...]

    @property
    def status(self) -> str:
        """`passed`, `failed` or `skipped`."""
        return "skipped" if self.skipped else "failed" if self.findings else "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """The file of `--model`.

    Attributes:
      round: after which it says it is the model; 0 for the initial one. digest: of its numbers, in hexadecimal.
      status: `named` where the ledger names this digest for that round, `other` where it does not, or `not compared`.
    """

    file: str
    round: int
    digest: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole audit.

    Attributes:
      block, block_hash: the newest block; compare the hash with a copy you trust. tasks: those judged, of all_tasks on the
        ledger. rounds: how many they have. round: the only round judged, 0 for all. finalised: how many of those judged are;
        without any there is no model, and nearly every check holds of nothing.
      objects: how many the ledger names. addresses: of the members, by index. model: None where no file was given.
    """

    run: str
    chain_id: int
    contract: str
    block: int
    block_hash: str
    tasks: tuple[int, ...]
    all_tasks: int
    rounds: int
    round: int
    finalised: int
    objects: int
    addresses: tuple[str, ...]
    results: tuple[Result, ...]
    model: ComparedModel | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not any(r.findings for r in self.results)

    def first(self) -> tuple[Result, Finding] | None:
        """The failure of the earliest round; those of no round come first, since they concern them all."""
        found = [(result, finding) for result in self.results for finding in result.findings]
        return min(found, key=lambda pair: (pair[1].round or 0, pair[0].number), default=None)

    def address(self, site: int | None) -> str:
        """Address of a member index, "" if there is none."""
        return self.addresses[site] if site is not None and 0 <= site < len(self.addresses) else ""


def exit_code(report: Report) -> int:
    """0, or the code of `AuditFailed`."""
    return 0 if report.ok else AuditFailed.exit_code


def as_json(report: Report) -> str:
    """One JSON object; the fields are documented in docs/audit.md and only ever added to."""
    first = report.first()
    return json.dumps(
        {
            "format": FORMAT,
            "run": report.run,
            "ok": report.ok,
            "first_failure": {"check": first[0].number, **_finding(report, first[1])} if first else None,
            "ledger": {
                "chain_id": report.chain_id, "contract": report.contract, "block": report.block, "block_hash": report.block_hash,
            },
            "tasks": {"judged": list(report.tasks), "on_ledger": report.all_tasks},
            "rounds": report.rounds,
            "only_round": report.round or None,
            "objects": report.objects,
            "model": asdict(report.model) if report.model else None,
            "checks": [
                {
                    "number": r.number, "title": r.title, "status": r.status, "skipped": r.skipped,
                    "meaning": r.meaning, "remedy": r.remedy, "findings": [_finding(report, f) for f in r.findings],
                }
                for r in report.results
            ],
        },
        indent=2,
    )  # fmt: skip


def _finding(report: Report, finding: Finding) -> dict[str, Any]:
    return {
        "round": finding.round,
        "site": finding.site,
        "address": report.address(finding.site) or None,
        "object": finding.object or None,
        "message": finding.message,
    }


def as_text(report: Report) -> str:
    """The list of checks, each failure with what it means and what to do, and the verdict."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    which = f"only round {report.round}, of {report.rounds} rounds" if report.round else f"{report.rounds} rounds"
    tasks = f"task {', '.join(map(str, report.tasks))} of {report.all_tasks}, " if report.all_tasks > 1 else ""
    yield f"run {report.run}: {tasks}{which}, {report.objects} objects"
    yield f"contract {report.contract} on chain {report.chain_id}, block {report.block} {report.block_hash}"
    yield ""
    for result in report.results:
        yield f"{result.number:>3}  {_mark(result):<7}  {result.title}"
        yield from _details(report, result)
    yield ""
    yield from _said_of(report.model)
    yield from _verdict(report)


def _said_of(model: ComparedModel | None) -> Iterator[str]:
    """A line on the file that was given; of another than the ledger names, check 13 says it."""
    if model is None or model.status == "other":
        return
    which = f"the model after round {model.round}" if model.round else "the initial model"
    said = f"{which}, as the ledger names it" if model.status == "named" else f"not compared; it says that it is {which}"
    yield f"{model.file}: {said}"


def _mark(result: Result) -> str:
    return {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[result.status]


def _details(report: Report, result: Result) -> Iterator[str]:
    if result.skipped:
        yield f"              {result.skipped}"
    for finding in result.findings[:_SHOWN]:
        yield from textwrap.wrap(_sentence(report, finding), _WIDTH, initial_indent="     - ", subsequent_indent="       ")
    if len(result.findings) > _SHOWN:
        yield f"     - and {len(result.findings) - _SHOWN} more (--format json shows all)"
    if result.findings:
        for label, text in (("means", result.meaning), ("do", result.remedy)):
            yield from textwrap.wrap(f"{label}: {text}", _WIDTH, initial_indent="     ", subsequent_indent="       ")


def _sentence(report: Report, finding: Finding) -> str:
    place = _place(report, finding)
    return f"{place}: {finding.message}" if place else finding.message


def _place(report: Report, finding: Finding) -> str:
    named = [
        f"round {finding.round}" if finding.round else "",
        f"site {finding.site} ({report.address(finding.site)})" if finding.site is not None else "",
        f"object {finding.object}" if finding.object else "",
    ]
    return ", ".join(filter(None, named))


def _verdict(report: Report) -> Iterator[str]:
    first, skipped = report.first(), [str(r.number) for r in report.results if r.skipped]
    if first is None:
        unfinished = (
            "" if report.finalised else ", but the round was not finalised" if report.round else ", but no round was finalised"
        )
        yield f"every check holds{unfinished}" + (f"; not done: {', '.join(skipped)}" if skipped else "")
        return
    failed = ", ".join(str(r.number) for r in report.results if r.findings)
    place = _place(report, first[1])
    where = f"{'at' if place.startswith('site') else 'in'} {place}" if place else "in the ledger as a whole"
    yield f"FAILED: check {failed}; first {where} (check {first[0].number})"
