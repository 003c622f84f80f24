"""One audit from a run's path to its report, and the export of what it needs. The order of things, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bahefl_flwr.audit.bundle import MAX_OBJECT_BYTES, About, write_bundle
from bahefl_flwr.audit.case import Case, named_objects
from bahefl_flwr.audit.checks import CHECKS, Check
from bahefl_flwr.audit.evidence import Evidence, read_evidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.model_checks import compared, model_file_claim
from bahefl_flwr.audit.objects import Access
from bahefl_flwr.audit.report import Report, Result
from bahefl_flwr.audit.subject import Subject, open_subject
from bahefl_flwr.errors import LedgerError, LedgerUnreachable, ObjectMissing, SettingsError, StoreError, StoreUnavailable
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.history import History, newest_block
from bahefl_flwr.ledger.replay import recorded_blocks
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.store.manifest import Manifest, PartRef
from bahefl_flwr.store.reading import VerifiedReads

_ALWAYS = (1, 2)
_AS_THE_RUN = Access()


def audit(
    run: Path, *, round: int | None = None, recompute: bool = False, model: Path | None = None, rpc: str = "",
    access: Access = _AS_THE_RUN,
) -> Report:  # fmt: skip
    """Carry out every check on a run.

    Args:
      run: run folder or bundle. round: the only round to judge, None for all. recompute: also add up the aggregates again.
      model: a file that is to be the model after the round it names. rpc: endpoint to ask instead of the run's chain database.
      access: to a store that is not a folder of the run.

    Raises:
      SettingsError: no such run, or no such round. LedgerError, StoreError: it cannot be read at all.
    """
    with open_subject(run, rpc, access) as opened:
        subject = _with_our_code(opened)
        file = model_file_claim(model) if model else None
        code_problem = _code_problem(subject.connection, subject.contract)
        evidence = None if code_problem else _evidence(subject)
        if evidence is None:
            return replace(_unreadable(subject, code_problem), model=compared(None, file))
        tasks = own_tasks(evidence, subject.store)
        numbers = [r.record.number for r in Case(evidence=evidence, store=subject.store, tasks=tasks).rounds()]
        if round is not None and round not in numbers:
            has = f"rounds {numbers[0]} to {numbers[-1]}" if numbers else "no rounds"
            raise SettingsError(f"--round {round}: the run has {has}")
        case = Case(
            evidence=evidence, store=subject.store, tasks=tasks, round=round or 0, recompute=recompute,
            chain_problems=subject.chain_problems, code_problem=code_problem, executed=subject.database is not None,
            claims=(*subject.claims, file) if file else subject.claims,
        )  # fmt: skip
        return replace(judge(case, subject.name), model=compared(case, file))


def judge(case: Case, name: str) -> Report:
    """Carry out every check on evidence that has been read."""
    results = tuple(_result(check, case) for check in CHECKS)
    return Report(
        run=name, chain_id=case.evidence.chain_id, contract=case.evidence.contract, block=case.evidence.head[0],
        block_hash=case.evidence.head[1],
        rounds=sum(1 for _ in replace(case, round=0).rounds()), round=case.round,
        finalised=sum(r.record.phase is RoundPhase.FINALIZED for r in case.rounds()),
        tasks=tuple(t.number for t in case.evidence.tasks if case.judges_task(t.number)), all_tasks=len(case.evidence.tasks),
        objects=len(case.needed), addresses=tuple(m.address for m in case.evidence.members), results=results,
    )  # fmt: skip


def own_tasks(evidence: Evidence, store: VerifiedReads) -> frozenset[int]:
    """The tasks of a run whose store this is: runs may share a contract one after the other, each with its own store.

    Those of which the store holds any object that the ledger names; if it holds none, the newest.
    """
    numbers = [task.number for task in evidence.tasks]
    held = [number for number in numbers if _holds_any(Case(evidence=evidence, store=store, tasks=frozenset({number})), store)]
    return frozenset(held or numbers[-1:])


def export(run: Path, file: Path, access: Access = _AS_THE_RUN) -> str:
    """Write a bundle of a run; its SHA-256.

    Raises:
      LedgerError: the run's chain is not here, or is damaged. StoreError: the file cannot be written.
    """
    with open_subject(run, access=access) as subject:
        if subject.database is None:
            raise LedgerError(
                f"{run} has no chain of its own, its ledger is at {subject.connection.url}: a bundle would prove nothing; "
                "keep the store, and audit with --rpc and any node of that chain"
            )
        if subject.chain_problems:
            raise LedgerError(f"the chain is damaged, so no bundle is made of it; first: {subject.chain_problems[0]}")
        evidence = None if _code_problem(subject.connection, subject.contract) else _evidence(subject)
        if evidence is None:
            raise LedgerError(f"the contract of {run} is none of this version; export with the version that made the run")
        final = next((claim.digest for claim in subject.claims if claim.round is None), "")
        about = About(run=subject.name, chain_id=evidence.chain_id, contract=evidence.contract, model=final)
        case = Case(evidence=evidence, store=subject.store, tasks=own_tasks(evidence, subject.store))
        objects = _objects(case, subject.store)
        return write_bundle(file, about, recorded_blocks(subject.database), objects)


def _result(check: Check, case: Case) -> Result:
    why = check.skipped(case)
    findings = () if why else _findings(check, case)
    why = why or ("" if findings else check.incomplete(case))
    return Result(
        number=check.number, title=check.title, meaning=check.meaning, remedy=check.remedy, skipped=why, findings=findings
    )


def _findings(check: Check, case: Case) -> tuple[Finding, ...]:
    try:
        return tuple(check.run(case))
    except (StoreError, StoreUnavailable, LedgerUnreachable):
        raise
    except Exception as error:  # noqa: BLE001  altered records may contradict each other in any way; the other checks go on
        message = f"the ledger's records contradict each other so that this check cannot be carried out ({error!r})"
        return (Finding(message=message),)


def _with_our_code(subject: Subject) -> Subject:
    """The same; read from the chain executed again if the contract is ours only there: check 1 tells of the altered file."""
    again = subject.rebuilt
    if again is None or not subject.chain_problems or not _code_problem(subject.connection, subject.contract):
        return subject
    return subject if _code_problem(again, subject.contract) else replace(subject, connection=again)


def _code_problem(connection: Connection, contract: str) -> str:
    try:
        FederationLedger.attach(connection, contract)
    except LedgerUnreachable:
        raise
    except LedgerError as error:
        return str(error)
    return ""


def _evidence(subject: Subject) -> Evidence | None:
    """What the ledger says; of a file that makes no sense, what its transactions say when they are executed again.

    None where even that is not to be had.
    """
    try:
        return read_evidence(History(subject.connection, subject.contract), subject.connection.chain_id)
    except LedgerUnreachable:
        raise
    except Exception:
        # An altered database may fail in any way, in SQLite, in the EVM or in between; check 1 has told what is wrong with it.
        if not subject.chain_problems:
            raise
    return read_evidence(History(subject.rebuilt, subject.contract), subject.rebuilt.chain_id) if subject.rebuilt else None


def _unreadable(subject: Subject, code_problem: str) -> Report:
    """Only the first two checks: what they found leaves nothing to judge."""
    evidence = Evidence(
        chain_id=subject.connection.chain_id, contract=subject.contract, head=newest_block(subject.connection), events=(),
        rules=(), members=(), tasks=(), epochs=(), rounds=(),
    )  # fmt: skip
    case = Case(
        evidence=evidence, store=subject.store, chain_problems=subject.chain_problems, code_problem=code_problem,
        executed=subject.database is not None,
    )  # fmt: skip
    why = "the contract is not ours" if code_problem else "the chain cannot be read"
    report = judge(case, subject.name)
    results = tuple(r if r.number in _ALWAYS else replace(r, skipped=why, findings=()) for r in report.results)
    return replace(report, results=results)


def _objects(case: Case, store: VerifiedReads) -> Iterator[tuple[str, bytes]]:
    """Every object that the ledger names, as it lies in the store: an audit is to find the same faults in the bundle."""
    cids = {each.cid for each in named_objects(case)}
    written: set[str] = set()
    for cid in sorted(cids):
        data = _raw(store, cid)
        if data is None:
            continue
        yield cid, data
        for part in sorted({ref.cid for ref in _parts(data)} - written):
            written.add(part)
            if (content := _raw(store, part)) is not None:
                yield part, content


def _holds_any(case: Case, store: VerifiedReads) -> bool:
    return any(_raw(store, each.cid) is not None for each in named_objects(case))


def _raw(store: VerifiedReads, cid: str) -> bytes | None:
    try:
        return store.raw(cid, MAX_OBJECT_BYTES - 1)
    except ObjectMissing:
        return None


def _parts(manifest: bytes) -> tuple[PartRef, ...]:
    try:
        return Manifest.decode(manifest).parts
    except StoreError:
        return ()
