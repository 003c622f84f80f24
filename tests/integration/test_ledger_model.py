"""The contract beside a model of it: whatever is sent, both accept it or both refuse it for the same reason, and then agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from bahefl_flwr.records import BallotStage, RoundOutcome, RoundPhase, members_in
from direct_ledger import DirectSixSites
from ledger_beside import MEMBERS, MOSTLY, RARELY, RULES, SETS, SOMEBODY
from ledger_beside_screening import BesideScreening
from ledger_model import CEREMONY, LIVE
from ledger_sites import NO_LAYER, digest


class Rounds(BesideScreening):
    """Whole rounds."""

    @rule(i=SOMEBODY, base=MOSTLY, weight=MOSTLY)
    def commit(self, i: int | None, base: bool, weight: bool) -> None:
        cap = self.sites.weights[i or 0]
        self.both(
            lambda: self.model.commit(i, base=base, weight=weight),
            lambda: self.by(i).commit_update(
                self.number(), digest("u", i), 1, cap if weight else cap + 1, self.view.round.base if base else digest("other")
            ),
        )

    @rule()
    def everybody_commits(self) -> None:
        r = self.view.round
        for i in members_in(r.selected & ~(r.committed | r.declined) & self.view.active):
            self.commit(i, base=True, weight=True)

    @rule(i=SOMEBODY)
    def decline(self, i: int | None) -> None:
        self.both(lambda: self.model.decline(i), lambda: self.by(i).decline(self.number(), "no data"))

    @rule()
    def close_commits(self) -> None:
        self.both(self.model.close_commits, lambda: self.sites.stranger.close_commits(self.number()))

    @rule(i=SOMEBODY, rightly=MOSTLY, left_out=st.one_of(st.just(0), SETS))
    def submit_aggregate(self, i: int | None, rightly: bool, left_out: int) -> None:
        """Without halves."""
        r = self.view.round
        who, included = r.coordinator if rightly else i, r.committed & ~left_out
        self.submit(who, included, 0)

    @rule(i=SOMEBODY, rightly=st.booleans())
    def resign(self, i: int | None, rightly: bool) -> None:
        who = self.view.round.coordinator if rightly else i
        self.both(lambda: self.model.resign(who), lambda: self.by(who).resign(self.number(), "tired"))

    @rule()
    def replace_coordinator(self) -> None:
        self.both(self.model.replace_coordinator, lambda: self.sites.stranger.replace_coordinator(self.number()))

    @rule(i=SOMEBODY, ok=st.booleans(), named=MOSTLY, layer=MOSTLY)
    def attest(self, i: int | None, ok: bool, named: bool, layer: bool) -> None:
        aggregate = self.view.round.aggregate if named else digest("another")
        reveal = self.sites.layer(i) if layer and i is not None else digest("no layer")
        self.both(
            lambda: self.model.attest(i, ok=ok, digest=named, layer=layer),
            lambda: self.by(i).attest(self.number(), aggregate, ok, reveal),
        )

    @rule(ok=MOSTLY)
    def everybody_attests(self, ok: bool) -> None:
        r = self.view.round
        for i in members_in(r.committed & ~(r.voted_ok | r.voted_bad) & self.view.active):
            self.attest(i, ok, named=True, layer=True)

    @rule(i=SOMEBODY, quorum=SETS)
    def release_share(self, i: int | None, quorum: int) -> None:
        r = self.view.round
        self.both(
            lambda: self.model.release_share(i, quorum),
            lambda: self.by(i).release_share(r.number, quorum, digest("share", i), r.aggregate),
        )

    @rule(skip=st.integers(0, 2))
    def a_quorum_opens(self, skip: int) -> None:
        r, epoch = self.view.round, self.view.epoch
        able = members_in(epoch.committee & ~r.disputed & ~self.view.task.excluded)
        quorum = (able[skip:] + able[:skip])[: epoch.threshold]
        for i in quorum:
            self.release_share(i, sum(1 << j for j in quorum))

    @rule()
    def finalize(self) -> None:
        self.both(self.model.finalize, lambda: self.sites.stranger.finalize(self.number()))

    @rule(admin=RARELY)
    def abandon(self, admin: bool) -> None:
        who = self.sites.admin if admin else self.sites.stranger
        self.both(lambda: self.model.abandon(admin=admin), lambda: who.abandon(self.number(), "given up"))

    # ---- progress

    @initialize(steps=st.integers(0, 20))
    def begin(self, steps: int) -> None:
        self.go_on(steps)

    @rule(steps=st.integers(1, 9))
    def go_on(self, steps: int) -> None:
        """What honest participants do next, so that runs get somewhere."""
        for _ in range(steps):
            self.next_step()()

    def next_step(self) -> Callable[[], None]:
        """By the phase of the view."""
        epoch, r = self.view.epoch, self.view.round
        if not self.view.task.open:
            return lambda: self.start_task(0, 4, screened=self.model.task.number % 2 == 0)
        if epoch.phase in CEREMONY:
            return lambda: self.whole_step("key")
        if r.phase not in LIVE:
            return lambda: self.let_time_pass(late=True)
        return {
            RoundPhase.COMMIT: self.everybody_commits,
            RoundPhase.AGGREGATE: self.aggregate_in_order,
            RoundPhase.VERIFY: lambda: self.everybody_attests(ok=True),
            RoundPhase.VERIFIED: self.open_in_order,
        }[r.phase]

    def aggregate_in_order(self) -> None:
        """What is screened, and every second round, shows layers and sketches; the second ones have halves if they can."""
        r = self.view.round
        enough_shown = r.number % 2 or r.revealed == r.committed
        if self.model.round.sketched if self.view.task.screened else enough_shown:
            enough = r.number % 2 == 0 and r.committed.bit_count() == MEMBERS
            self.submit(r.coordinator, r.committed, 0b111000 if enough else 0)
        else:
            self.everybody_reveals()
            self.a_quorum_sketches(0)

    def open_in_order(self) -> None:
        """Open, vote on the halves, confirm, finalise."""
        r = self.view.round
        if r.opened != NO_LAYER:
            self.finalize()
        elif not r.open_quorum:
            self.a_quorum_opens(0)
        elif r.ballot_stage is BallotStage.CAST:
            self.everybody_casts(r.number)
        elif r.ballot_stage is BallotStage.REVEAL:
            self.everybody_shows()
        else:
            self.everybody_confirms(RoundOutcome(r.number // 2 % 4), 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A chain with six registered sites."""
    Rounds.prepared = tmp_path_factory.mktemp("model") / "registered.sqlite"
    sites = DirectSixSites(Rounds.prepared, RULES)
    sites.register()
    Rounds.address = sites.admin.address
    sites.close()


def compared(examples: int, steps: int) -> None:
    """Run the machine."""
    every = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=every)
    run_state_machine_as_test(Rounds, settings=chosen)


@pytest.mark.usefixtures("prepared")
def test_contract_and_model_agree_on_everything() -> None:
    """Some short random runs of members, administrator, strangers and time."""
    compared(examples=8, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("prepared")
def test_contract_and_model_agree_for_long() -> None:
    """The same, longer."""
    compared(examples=150, steps=50)
