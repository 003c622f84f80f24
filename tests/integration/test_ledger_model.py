"""The contract beside a model of it: whatever is sent, both accept it or both refuse it for the same reason, and then agree."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, Outcome, RoundPhase, members_in
from direct_ledger import DirectSites
from ledger_model import CEREMONY, LIVE, Model, Refused
from ledger_sites import CONFIG, NO_EVIDENCE, NO_LAYER, WEIGHTS, WINDOW_S, N, digest

RULES = replace(CONFIG, epoch_rounds=2)
SOMEBODY = st.one_of(st.integers(0, N - 1), st.integers(0, N - 1), st.integers(0, N - 1), st.none())
MEMBER = st.integers(0, N - 1)
MOSTLY = st.integers(0, 9).map(bool)
RARELY = st.integers(0, 5).map(lambda k: k == 0)
SETS = st.integers(0, 2**N - 1)


class Beside(RuleBasedStateMachine):
    """Five sites on the real contract; every rule is one transaction, or the same by several members."""

    prepared: Path
    address: str

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        copy = shutil.copy(self.prepared, Path(self._folder.name) / "chain.sqlite")
        self.sites = DirectSites(Path(copy), self.address)
        self.model = Model(RULES, N)
        self.view = self.sites.view()

    def teardown(self) -> None:
        self.sites.close()
        self._folder.cleanup()

    def by(self, i: int | None) -> FederationLedger:
        """The contract as a member sees it, or a stranger."""
        return self.sites.stranger if i is None else self.sites.ledgers[i]

    def both(self, expect: Callable[[], None], send: Callable[[], object]) -> None:
        """Do the same in model and contract, and compare answers and states."""
        model, view = self.model, self.view
        ceremony = view.epoch.phase in (*CEREMONY, EpochPhase.DISPUTE)
        model.late = self.sites.view().chain_time > (view.epoch.deadline if ceremony else view.round.deadline)
        model.coordinators, model.seats = 0, None
        expected = got = ""
        try:
            expect()
        except Refused as refusal:
            expected = str(refusal)
        try:
            send()
        except TransactionReverted as refusal:
            got = refusal.reason
        assert got == expected, (got, expected)
        self.view = self.sites.view()
        self.adopt_draws()
        self.compare()

    def adopt_draws(self) -> None:
        """Who was drawn must be one that could be; the model goes on with it."""
        model, view = self.model, self.view
        if model.seats:
            pool, size = model.seats
            assert not view.epoch.committee & ~pool
            assert view.epoch.committee.bit_count() == size
            model.epoch.committee = view.epoch.committee
        if model.coordinators:
            assert model.coordinators >> view.round.coordinator & 1
            model.round.coordinator = view.round.coordinator

    def compare(self) -> None:
        """Everything the model knows."""
        task, epoch, r, v = self.model.task, self.model.epoch, self.model.round, self.view
        assert v.active == self.model.active
        assert (v.task.number, v.task.open, v.task.end_reason) == (task.number, task.open, task.end_reason)
        assert (v.task.excluded, v.task.absent, v.finalized_count) == (task.excluded, task.absent, task.finalized)
        e = v.epoch
        assert (e.epoch, e.phase, e.committee, e.pool) == (epoch.number, epoch.phase, epoch.committee, epoch.pool)
        assert (e.accused, e.renewal, e.finalized_before) == (epoch.accused, epoch.renewal, epoch.finalized_before)
        assert [e.committed, e.revealed, e.published, e.confirmed] == epoch.acted
        w = v.round
        assert (w.number, w.phase, w.attempt, w.coordinator) == (r.number, r.phase, r.attempt, r.coordinator)
        assert (w.selected, w.committed, w.declined, w.included) == (r.selected, r.committed, r.declined, r.included)
        assert (w.voted_ok, w.voted_bad, w.revealed, w.failed) == (r.voted_ok, r.voted_bad, r.revealed, r.failed)
        assert (w.open_quorum, w.confirmed, w.disputed) == (r.open_quorum, r.confirmed, r.disputed)
        assert (w.opened, w.abort_reason) == (r.opened or NO_LAYER, r.abort_reason)

    # ---- administration

    @rule(threshold=st.sampled_from([0, 0, 1, 2, 3, 4]), rounds=st.integers(1, 4))
    def start_task(self, threshold: int, rounds: int) -> None:
        self.both(lambda: self.model.start_task(threshold, rounds), lambda: self.sites.start(threshold=threshold, rounds=rounds))

    @rule(really=RARELY)
    def end_task(self, really: bool) -> None:
        if really:
            self.both(self.model.end_task, lambda: self.sites.admin.end_task("ended"))

    @rule()
    def renew_keys(self) -> None:
        self.both(self.model.renew_keys, self.sites.admin.renew_keys)

    @rule(selected=SETS)
    def select_sites(self, selected: int) -> None:
        self.both(
            lambda: self.model.select_sites(selected), lambda: self.sites.admin.select_sites(self.number(), selected)
        )  # fmt: skip

    @rule(i=MEMBER)
    def suspend(self, i: int) -> None:
        if self.model.active.bit_count() > 3:
            address = self.sites.accounts[i].address
            self.both(lambda: self.model.suspend(i), lambda: self.sites.admin.suspend(address, "off line"))

    @rule(i=MEMBER)
    def reinstate(self, i: int) -> None:
        self.both(lambda: self.model.reinstate(i), lambda: self.sites.admin.reinstate(self.sites.accounts[i].address))

    @rule(late=st.booleans())
    def let_time_pass(self, late: bool) -> None:
        self.sites.chain.clock.advance(WINDOW_S + 1 if late else WINDOW_S // 2)

    # ---- key epochs

    @rule(i=SOMEBODY, step=st.sampled_from(CEREMONY), key=st.sampled_from(["key", "key", "odd"]))
    def act(self, i: int | None, step: EpochPhase, key: str) -> None:
        send = dict(
            zip(
                CEREMONY,
                (
                    FederationLedger.commit_seeds, FederationLedger.reveal_seeds,
                    FederationLedger.publish_key_parts, FederationLedger.confirm_key,
                ), strict=True,
            )
        )[step]  # fmt: skip
        self.both(lambda: self.model.act(i, step, digest(key)), lambda: send(self.by(i), self.view.epoch.epoch, digest(key)))

    @rule(key=st.sampled_from(["key", "key", "key", "odd"]))
    def whole_step(self, key: str) -> None:
        step, odd = self.view.epoch.phase, key
        if step in CEREMONY:
            for i in members_in(self.view.epoch.committee & ~self.model.epoch.acted[CEREMONY.index(step)]):
                self.act(i, step, odd)
                odd = "key"

    @rule()
    def expire_epoch(self) -> None:
        self.both(self.model.expire_epoch, lambda: self.sites.stranger.expire_epoch(self.view.epoch.epoch))

    @rule(i=SOMEBODY, culprit=MEMBER, proof=RARELY)
    def accuse(self, i: int | None, culprit: int, proof: bool) -> None:
        evidence, address = digest("evidence") if proof else NO_EVIDENCE, self.sites.accounts[culprit].address
        self.both(
            lambda: self.model.accuse(i, culprit, evidence=proof),
            lambda: self.by(i).accuse(self.view.epoch.epoch, address, evidence, "bad share"),
        )

    @rule(i=MEMBER, k=MEMBER)
    def accuse_an_opener(self, i: int, k: int) -> None:
        openers = members_in(self.view.round.open_quorum)
        if openers:
            self.accuse(i, openers[k % len(openers)], proof=False)

    @rule(i=MEMBER, k=MEMBER)
    def dispute(self, i: int, k: int) -> None:
        committee = members_in(self.view.epoch.committee)
        if committee:
            self.accuse(committee[i % len(committee)], committee[k % len(committee)], proof=True)

    @rule(k=MEMBER)
    def accuse_together(self, k: int) -> None:
        committee = members_in(self.view.epoch.committee)
        if committee:
            culprit = committee[k % len(committee)]
            for i in committee:
                self.accuse(i, culprit, proof=False)

    # ---- rounds

    @rule(i=SOMEBODY, base=MOSTLY, weight=MOSTLY)
    def commit(self, i: int | None, base: bool, weight: bool) -> None:
        cap = WEIGHTS[i or 0]
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
        r = self.view.round
        who, included = r.coordinator if rightly else i, r.committed & ~left_out
        weights, reasons = bytes([1]) * included.bit_count(), bytes([1]) * (r.committed & ~included).bit_count()
        self.both(
            lambda: self.model.submit_aggregate(who, included),
            lambda: self.by(who).submit_aggregate(r.number, digest("sum", r.attempt), 1, included, 0, weights, reasons),
        )

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

    @rule(i=SOMEBODY, rightly=MOSTLY, odd=RARELY)
    def confirm_opening(self, i: int | None, rightly: bool, odd: bool) -> None:
        quorum, model = self.view.round.open_quorum if rightly else 0b11, digest("odd" if odd else "model", self.number())
        self.both(
            lambda: self.model.confirm_opening(i, quorum, model),
            lambda: self.by(i).confirm_opening(self.number(), quorum, model, Outcome.WHOLE),
        )

    @rule()
    def everybody_confirms(self) -> None:
        for i in members_in(self.view.round.committed & ~self.view.round.confirmed):
            self.confirm_opening(i, rightly=True, odd=False)

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
            return lambda: self.start_task(0, 4)
        if epoch.phase in CEREMONY:
            return lambda: self.whole_step("key")
        if r.phase not in LIVE:
            return lambda: self.let_time_pass(late=True)
        opening = self.everybody_confirms if r.open_quorum else lambda: self.a_quorum_opens(0)
        return {
            RoundPhase.COMMIT: self.everybody_commits,
            RoundPhase.AGGREGATE: lambda: self.submit_aggregate(None, rightly=True, left_out=0),
            RoundPhase.VERIFY: lambda: self.everybody_attests(ok=True),
            RoundPhase.VERIFIED: self.finalize if r.opened != NO_LAYER else opening,
        }[r.phase]

    def number(self) -> int:
        """Number of the newest round."""
        return self.view.round.number


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A chain with five registered sites."""
    Beside.prepared = tmp_path_factory.mktemp("model") / "registered.sqlite"
    sites = DirectSites(Beside.prepared, RULES)
    sites.register()
    Beside.address = sites.admin.address
    sites.close()


def compared(examples: int, steps: int) -> None:
    """Run the machine."""
    every = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=every)
    run_state_machine_as_test(Beside, settings=chosen)


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
