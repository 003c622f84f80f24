"""A site of a real run whose process is killed while it answers "train": it goes on, and commits once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict

from bahefl_flwr import run_folder
from bahefl_flwr.app import client_app
from bahefl_flwr.client import client_fn
from bahefl_flwr.federation import open_federation
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.strategy import BaheflStrategy
from in_process_grid import Deliver, InProcessGrid
from lesion_run import TINY
from site_process import answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
VICTIM = 1


class KilledRun:
    """A run of one round in which a site's first process is killed at a point, and a new one asked the same.

    Attributes:
      replies: what the victim's processes answered to "train"; None where one was killed.
      committed: digests of the updates on the ledger, by member. phase: of the round at its end.
    """

    def __init__(self, folder: Path, die: str) -> None:
        self.die, self._folder = die, folder
        self.settings = compose([*TINY, "federation.rounds=1", "train.local_epochs=3", f"run.root={folder}"])
        self.replies: list[Message | None] = []

    def run(self) -> KilledRun:
        """Run it to its end."""
        config = self.settings.flat()
        grid = InProcessGrid(client_app, self.settings.federation.sites, dict(config), tamper=self._deliver)
        self.path = run_folder.create(self._folder, "killed", grid.run_id, self.settings.yaml()).path
        try:
            with open_federation(self.settings, self.path) as federation:
                BaheflStrategy(federation).start(grid=grid)
                self.committed = {u.member: u.digest for u in federation.ledger.updates(1)}
                self.phase = federation.ledger.round(1).phase
                self.run_hex = federation.ledger.view().task.run_digest.hex()
        finally:
            grid.close()
        return self

    def _deliver(self, site: int, message: Message, deliver: Deliver) -> Message | None:
        if (site, message.metadata.message_type) != (VICTIM, "train"):
            return deliver(message)
        sites, config, die = self.settings.federation.sites, self.settings.flat(), "" if self.replies else self.die
        reply = answer(VICTIM, sites, config, message, die=die, reply=self._folder / "reply")
        self.replies.append(reply)
        return reply or Message(Error(8, "ClientApp stopped responding"), reply_to=message)

    @property
    def journalled(self) -> dict[str, Any]:
        """The victim's own record of its commitment."""
        record = Journal(self.path / "sites" / f"{VICTIM:03d}" / "journal").get((self.run_hex, 1, "commit"))
        assert record
        return record


@pytest.fixture(scope="module", params=["fit", "before", "after"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KilledRun:
    """A run for each point at which the victim's process is killed."""
    return KilledRun(tmp_path_factory.mktemp("killed"), request.param).run()


def undisturbed(settings: Settings) -> float:
    """The loss of the victim's training where nobody is killed."""
    node = {"partition-id": VICTIM, "num-partitions": settings.federation.sites}
    client = client_fn(Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=dict(settings.flat())))
    return float(client.fit(client.get_parameters({}), {"server-round": 1, "rounds": 1})[2]["loss"])


def test_a_killed_site_commits_once_what_it_would_have_committed(killed: KilledRun) -> None:
    """In whatever moment: one commitment, the one in its journal; trained to the loss of an undisturbed site; round finalised."""
    assert killed.replies[0] is None
    assert killed.phase is RoundPhase.FINALIZED
    assert len(killed.committed) == killed.settings.federation.sites
    assert [d.hex() for d in killed.committed.values()].count(killed.journalled["digest"]) == 1
    assert killed.journalled["metrics"]["loss"] == undisturbed(killed.settings)


def test_a_site_is_asked_again_only_until_it_has_committed(killed: KilledRun) -> None:
    """A site killed before its commitment is on the ledger answers the second message; after it there is none."""
    assert [reply is not None for reply in killed.replies] == ([False] if killed.die == "after" else [False, True])


def test_no_finished_epoch_is_trained_again(killed: KilledRun) -> None:
    """Killed in fit, it went on at the second epoch; killed later, the journal answered. No plain weights are left behind."""
    resumed = {"fit": 1, "before": 0, "after": 0}[killed.die]
    assert killed.journalled["metrics"]["resumed-epochs"] == resumed
    assert not list((killed.path / "sites").rglob("fit.pt"))
