"""Every message of a run is executed twice at once, and once more when it is late: nothing changes (protocol rule 9).

Real ledger, store, encryption and apps. Transactions that fail once, before or after they took effect, are tried here too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from bahefl_flwr.errors import LedgerUnreachable
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import ExclusionReason, ObjectKind, RoundOutcome, RoundPhase, members_in
from bahefl_flwr.site.model import MODEL_FILE, load_model
from bahefl_flwr.steps import Action
from bahefl_flwr.store.dag_cbor import DAG_CBOR
from federation_run import Arrays, Run, federated_run, known_update
from hostile_updates import MARK, poisoned, spoil_marked
from in_process_grid import Deliver, Tamper
from seeded_run import seeded

pytestmark = pytest.mark.federation

HALVES = ("federation.sites=6", "federation.min_sites=3", "federation.rounds=1")
BADLY = 2


class Repeats:
    """Delivers each message twice; and before it the message before the last one, and after it the last one: late, in reverse.

    Attributes:
      executed: executions by type of message. crashed: what a site answered to any of them that is no error of ours.
    """

    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self.crashed: list[str] = []
        self._seen: defaultdict[int, list[Message]] = defaultdict(list)

    def tamper(self, run: Run) -> Tamper:
        """For `federated_run`."""

        def deliver_often(site: int, message: Message, deliver: Deliver) -> Message | None:
            seen = self._seen[site]
            for old in seen[-2:-1]:
                self._execute(old, deliver)
            first, second = self._execute(message, deliver), self._execute(message, deliver)
            for old in seen[-1:]:
                self._execute(old, deliver)
            seen.append(message)
            return second if succeeded(second) else first

        return deliver_often

    def _execute(self, message: Message, deliver: Deliver) -> Message:
        kind = message.metadata.message_type
        self.executed[kind] += 1
        reply = deliver(message)
        if reply.has_error():
            self.crashed.append(f"{kind}: {reply.error.reason}")
        return reply


def succeeded(reply: Message) -> bool:
    """Whether the site did what it was asked."""
    return reply.has_content() and bool(reply.content["status"]["ok"])


def put_objects(run: Run, kind: ObjectKind) -> Counter[tuple[int, str, int]]:
    """How many objects of a kind each site put in each round and epoch."""
    links = [f.link for f in run.store.files() if f.link.codec == DAG_CBOR]
    manifests = [run.store.manifest(link.digest) for link in links]
    return Counter((m.round, m.site, m.epoch) for m in manifests if m.kind is kind)


def final_models(run: Run) -> set[str]:
    """Digests of the models that the sites hold after a run."""
    return {load_model(run.site_folder(s) / MODEL_FILE).digest().hex() for s in range(run.settings.federation.sites)}


def test_every_message_again_and_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greeting, ceremony, training, uploads, sketches, sums, openings, evaluation: the model of an undisturbed run, bit for bit.

    Each site has made one ciphertext a round, and has answered all repetitions, if not as asked, then with an error of ours.
    """
    undisturbed = federated_run(tmp_path / "once", tamper=seeded(monkeypatch))
    repeats = Repeats()
    run = federated_run(tmp_path / "often", tamper=seeded(monkeypatch, repeats.tamper))
    assert final_models(run) == final_models(undisturbed) == {undisturbed.final_model}
    assert [r.phase for r in run.rounds.values()] == [RoundPhase.FINALIZED] * 2
    assert {r.attempt for r in run.rounds.values()} == {0}
    assert set(put_objects(run, ObjectKind.UPDATE).values()) == {1}
    assert set(put_objects(run, ObjectKind.SEEDS).values()) == {1}
    assert repeats.crashed == []
    expected = {a.value for a in Action} - {Action.JUDGE, Action.CAST_BALLOT, Action.REVEAL_BALLOT}
    assert all(repeats.executed[kind] >= 2 for kind in expected)


def halves(tmp_path: Path, **options: Any) -> Run:
    """Three of six sites train the other way, and vote for their own half; public anchor data decide."""
    return federated_run(tmp_path, *HALVES, update=poisoned(lambda a: -a, 0, 1, 2), ballots_reversed=(0, 1, 2), **options)


def spoiled(tmp_path: Path, **options: Any) -> Run:
    """One site's update spoils the sum; its site is found, and the sum made again."""

    def update(site: int, number: int) -> Arrays:
        arrays = known_update(site, number)
        if site == BADLY:
            arrays[-1] = MARK.reshape(())
        return arrays

    return federated_run(tmp_path, "federation.rounds=1", update=update, **options)


def expect_halves(run: Run) -> None:
    """The honest half has become the model, after a vote in which everybody had a say."""
    r = run.rounds[1]
    winners = r.split if r.outcome is RoundOutcome.SECOND else r.included & ~r.split
    honest = {m.index for m in run.members if m.address in {run.address(s) for s in (3, 4, 5)}}
    assert (r.phase, set(members_in(winners)), r.balloted) == (RoundPhase.FINALIZED, honest, 0b111111)


def expect_spoiled(run: Run) -> None:
    """The second sum, without the culprit, has become the model; nobody is accused."""
    r = run.rounds[1]
    assert (r.phase, r.attempt) == (RoundPhase.FINALIZED, 1)
    assert set(r.reasons) == {ExclusionReason.GARBAGE}
    assert run.view and run.view.epoch.accused == run.view.task.excluded == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_vote_on_halves_is_the_same_when_every_message_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody votes twice or otherwise, though ballots are asked for again while they are cast, shown and counted."""
    undisturbed, repeats = halves(tmp_path / "once", tamper=seeded(monkeypatch)), Repeats()
    run = halves(tmp_path / "often", tamper=seeded(monkeypatch, repeats.tamper))
    expect_halves(run)
    assert final_models(run) == final_models(undisturbed)
    assert repeats.crashed == []
    assert min(repeats.executed[Action.CAST_BALLOT], repeats.executed[Action.REVEAL_BALLOT]) >= 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_spoiled_sum_is_made_again_once_when_every_message_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sum is reported once by each site, and the second one opens to the model of an undisturbed run."""
    spoil_marked(monkeypatch)
    undisturbed, repeats = spoiled(tmp_path / "once", tamper=seeded(monkeypatch)), Repeats()
    run = spoiled(tmp_path / "often", tamper=seeded(monkeypatch, repeats.tamper))
    expect_spoiled(run)
    assert final_models(run) == final_models(undisturbed)
    assert repeats.crashed == []


def fail_once(monkeypatch: pytest.MonkeyPatch, *names: str) -> Counter[str]:
    """Let each site's first transaction of these kinds fail, at some before it is sent, at the others after it took effect.

    What a site hears then is what it hears when its node or its own process dies at that moment. Gives how often by kind.
    """
    failed: Counter[str] = Counter()
    seen: dict[tuple[str, str], int] = {}
    for name in names:
        monkeypatch.setattr(FederationLedger, name, failing(name, getattr(FederationLedger, name), failed, seen))
    return failed


def failing(name: str, send: Callable[..., Any], failed: Counter[str], seen: dict[tuple[str, str], int]) -> Callable[..., Any]:
    """A transaction of FederationLedger that fails the first time that an account sends it."""

    def sent(ledger: FederationLedger, *arguments: Any) -> Any:
        key = name, ledger._connection.account.address
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            return send(ledger, *arguments)
        failed[name] += 1
        if int(key[1], 16) % 2:
            send(ledger, *arguments)
        raise LedgerUnreachable(f"the node died at {name}")

    return sent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_vote_survives_a_failure_of_every_ballot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ballot whose transaction came to nothing is cast again as it was, and one that took effect is not cast twice."""
    failed = fail_once(monkeypatch, "commit_update", "cast_ballot", "reveal_ballot", "confirm_opening")
    expect_halves(halves(tmp_path))
    assert set(failed.values()) == {6}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_spoiled_sum_survives_a_failure_of_every_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a site saw of the first sum is in its journal before it tells the ledger: told again, it is the same.

    And who coordinates keeps the office while its node does not answer.
    """
    spoil_marked(monkeypatch)
    failed = fail_once(monkeypatch, "release_sketch", "submit_aggregate", "confirm_opening")
    expect_spoiled(spoiled(tmp_path))
    assert failed["confirm_opening"] >= 3
