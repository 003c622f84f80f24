"""One small real run for the tests of the audit, made once; each test gets a copy of its own to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audited_run import AuditedRun
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, read_evidence
from bahefl_flwr.audit.objects import ReadOnlyStore
from bahefl_flwr.audit.subject import open_subject
from bahefl_flwr.ledger.history import History
from bahefl_flwr.run_folder import RunFolder, summarise
from federation_run import federated_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run: three sites, two rounds, nobody misbehaves."""
    run = federated_run(tmp_path_factory.mktemp("audited"), "federation.sites=3")
    summary = summarise(run.lines, experiment="smoke", seconds=1.0)
    facts = {
        "contract": run.ledger.address,
        "chain_id": 20260,
        "last_round": 2,
        "block_number": 1,
        "model_digest": run.final_model,
    }
    RunFolder(path=run.folder).write_summary({**summary, "ledger": {**facts, "key_mode": "", "account_keys": ""}})  # type: ignore[typeddict-item]
    return run.folder


@pytest.fixture
def audited(whole_run: Path, tmp_path: Path) -> AuditedRun:
    """A copy of the run, to be audited and spoilt."""
    shutil.copytree(whole_run, tmp_path / "run")
    return AuditedRun(tmp_path / "run")


@pytest.fixture(scope="session")
def evidence(whole_run: Path) -> Evidence:
    """What the ledger of the run says."""
    with open_subject(whole_run) as subject:
        return read_evidence(History(subject.connection, subject.contract), subject.connection.chain_id)


@pytest.fixture
def case(evidence: Evidence, whole_run: Path) -> Case:
    """The run as it is."""
    return Case(evidence=evidence, store=ReadOnlyStore(whole_run / "store"))
