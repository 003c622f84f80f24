"""Claims about whole secure runs whose store is elsewhere: served over HTTP, or in a bucket."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from bahefl_flwr import console
from bahefl_flwr.errors import StoreRefused
from bahefl_flwr.identity import Identity
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.run_folder import LEDGER_FILE
from bahefl_flwr.site.model import MODEL_FILE, load_model
from bahefl_flwr.store import LocalStore, part_cid
from federation_run import SHAPES, Run, examples, federated_run, flip_one_byte, known_update
from in_process_grid import Deliver, Tamper
from s3_server import BUCKET, CREDENTIALS, REGION, S3Server
from served_store import ENDS_AT_ONCE, ServedStore, an_object, site_identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ONE_ROUND = "federation.rounds=1"
# Six standard deviations of two rounds with three weight bits: docs/security.md, section 3.
ROUNDING = 1.5e-4


class ServedRun:
    """A store that is served to the members on a run's own ledger, from the moment that there is one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.settings = ("store=http", f"store.url=http://127.0.0.1:{self._port}")
        self.served = ServedStore(folder)

    def start(self, run: Run) -> None:
        """Serve; called when the ledger is up."""
        where = json.loads((run.folder / LEDGER_FILE).read_text())
        self.served.options = ["--rpc", where["url"], "--contract", where["contract"]]
        self.served._port = str(self._port)
        self.served.start()

    def object_of(self, digest: bytes) -> Path:
        """File of the first part of a stored object."""
        return self.served.file_of(part_cid(self.served.disk.manifest(digest).parts[0].digest))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedRun]:
    run = ServedRun(tmp_path / "served")
    yield run
    if run.served.process:
        run.served.stop()


def error_of(run: Run) -> float:
    """Largest difference of a parameter between the opened model and plain arithmetic in the clear, after two rounds."""
    weights = [examples(site) for site in range(4)]
    expected = np.concatenate([np.full(shape, 0.5).reshape(-1) for shape in SHAPES])
    for number in (1, 2):
        flat = [np.concatenate([u.reshape(-1) for u in known_update(site, number)]) for site in range(4)]
        expected += np.average(np.clip(flat, -0.25, 0.25).astype(np.float64), axis=0, weights=weights)
    return float(np.abs(load_model(run.site_folder(0) / MODEL_FILE).vector() - expected).max())


def when(name: str, act: Callable[[Run], object]) -> Callable[[Run], Tamper]:
    """Do something once, just before the first message of a type is delivered."""

    def tampering(run: Run) -> Tamper:
        done: list[str] = []

        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == name and not done:
                done.append(name)
                act(run)
            return deliver(message)

        return tamper

    return tampering


def updates_of(run: Run) -> list[bytes]:
    """Digests of round 1's updates."""
    return [u.digest for u in run.ledger.updates(1)]


def test_a_run_over_http_opens_the_plain_average(tmp_path: Path, served: ServedRun) -> None:
    """Two rounds, all sites; not a byte of it in the run's own folder; the audit of the served folder finds nothing wrong."""
    run = federated_run(tmp_path, *served.settings, ledger_is_up=served.start)
    assert [run.rounds[n].phase for n in (1, 2)] == [RoundPhase.FINALIZED] * 2
    assert error_of(run) < ROUNDING
    assert not (run.folder / "store").exists()
    assert console.main(["audit", str(run.folder), "--recompute", "--store", str(served.served.folder / "store")]) == 0


def test_an_audit_reads_a_served_store_itself(tmp_path: Path, served: ServedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Signed by any member; without an account it says what to do."""
    run = federated_run(tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start)
    assert console.main(["audit", str(run.folder), "--recompute", "--identity", str(run.site_folder(1) / "identity")]) == 0
    capsys.readouterr()
    assert console.main(["audit", str(run.folder)]) == 2
    assert "--identity" in capsys.readouterr().err


def test_only_the_runs_sites_may_use_its_store(tmp_path: Path, served: ServedRun) -> None:
    """The members on the ledger are admitted without being listed anywhere else, and nobody besides."""
    tried: list[str] = []

    def stranger(run: Run) -> None:
        with pytest.raises(StoreRefused) as refused:
            served.served.client(site_identity(), ENDS_AT_ONCE).manifest(updates_of(run)[0])
        tried.append(str(refused.value))

    run = federated_run(
        tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start, tamper=when("query.aggregate", stranger)
    )
    assert run.rounds[1].included == 0b1111
    assert "is no active member" in tried[0]


def test_an_update_that_the_served_store_altered_is_put_again(tmp_path: Path, served: ServedRun) -> None:
    """The coordinator has counted it; the others cannot read it, have its owner put it again, and the round goes through."""

    def spoil(run: Run) -> None:
        flip_one_byte(served.object_of(updates_of(run)[0]))

    run = federated_run(tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start, tamper=when("query.open", spoil))
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.rounds[1].included == 0b1111


def test_a_store_that_is_killed_and_started_again_costs_no_update(tmp_path: Path, served: ServedRun) -> None:
    """kill -9 just before the coordinator reads: the sites wait for it, and nobody is excluded or accused."""

    def restart(run: Run) -> None:
        served.served.kill()
        served.served.start()

    run = federated_run(tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start, tamper=when("query.aggregate", restart))
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert run.rounds[1].included == 0b1111
    assert run.view
    assert run.view.task.excluded == 0


def test_gc_keeps_all_that_the_ledger_refers_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an ended run nothing goes but what was never named, and the audit finds nothing missing afterwards."""
    run = federated_run(tmp_path)
    store = LocalStore(run.folder / "store")
    stray = store.put(an_object([b"of nobody"]), [b"of nobody"])
    assert console.main(["store", "gc", str(run.folder), "--grace-hours", "0", "--delete", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not store.has(stray)
    assert told["files"] == 2
    assert console.main(["audit", str(run.folder), "--recompute"]) == 0


def test_gc_during_a_run_takes_nothing_from_it(tmp_path: Path, served: ServedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Between the aggregate's put and its opening, without any grace: the round goes through."""

    def clear(run: Run) -> None:
        where = json.loads((run.folder / LEDGER_FILE).read_text())
        folder = str(served.served.folder / "store")
        ledger = ["--rpc", where["url"], "--contract", where["contract"]]
        assert console.main(["store", "gc", folder, *ledger, "--grace-hours", "0", "--delete", "--format", "json"]) == 0

    run = federated_run(tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start, tamper=when("query.open", clear))
    assert run.rounds[1].phase is RoundPhase.FINALIZED
    assert json.loads(capsys.readouterr().out)["files"] == 0


def test_a_run_over_s3_opens_the_plain_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds, all sites, in a bucket that is cleared meanwhile without any grace; the audit reads it there."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with S3Server(tmp_path / "log") as server:
        url = f"s3://{BUCKET}/run"

        def clear(run: Run) -> None:
            where = json.loads((run.folder / LEDGER_FILE).read_text())
            ledger = ["--rpc", where["url"], "--contract", where["contract"]]
            bucket = [url, "--endpoint", server.url, "--region", REGION]
            assert console.main(["store", "gc", *bucket, *ledger, "--grace-hours", "0", "--delete"]) == 0

        settings = ("store=s3", f"store.url={url}", f"store.endpoint={server.url}", f"store.region={REGION}")
        run = federated_run(tmp_path, *settings, tamper=when("query.open", clear))
        assert error_of(run) < ROUNDING
        assert not (run.folder / "store").exists()
        assert console.main(["audit", str(run.folder), "--recompute"]) == 0


def test_an_identity_from_elsewhere_does_not_audit(tmp_path: Path, served: ServedRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The store refuses it, and the audit says so instead of calling every object missing."""
    run = federated_run(tmp_path, *served.settings, ONE_ROUND, ledger_is_up=served.start)
    Identity.create_or_load(tmp_path / "stranger")
    assert console.main(["audit", str(run.folder), "--identity", str(tmp_path / "stranger")]) == 5
    assert "not-a-member" in capsys.readouterr().err
