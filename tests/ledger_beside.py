"""The contract and its model side by side: what is sent goes to both, which must answer alike and then agree.

Members, administrator and key ceremonies; rounds are in test_ledger_model.py, screening in ledger_beside_screening.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, members_in
from direct_ledger import DirectSixSites
from ledger_model import BASE, CEREMONY, Model, Refused
from ledger_sites import CONFIG, NO_EVIDENCE, NO_LAYER, WINDOW_S, SixSites, digest

RULES = replace(CONFIG, epoch_rounds=2)
MEMBERS = len(SixSites.weights)
SOMEBODY = st.one_of(st.integers(0, MEMBERS - 1), st.integers(0, MEMBERS - 1), st.integers(0, MEMBERS - 1), st.none())
MEMBER = st.integers(0, MEMBERS - 1)
MOSTLY = st.integers(0, 9).map(bool)
RARELY = st.integers(0, 5).map(lambda k: k == 0)
SETS = st.integers(0, 2**MEMBERS - 1)


class Beside(RuleBasedStateMachine):
    """Six sites on the real contract; every rule is one transaction, or the same by several members."""

    prepared: Path
    """A chain's file with the registered sites."""
    address: str

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        copy = shutil.copy(self.prepared, Path(self._folder.name) / "chain.sqlite")
        self.sites = DirectSixSites(Path(copy), self.address)
        self.model = Model(RULES, MEMBERS)
        self.view = self.sites.view()
        self.seeds: dict[int, bytes] = {}

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
        assert v.task.screened is task.screened
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
        assert w.opened == (w.base if r.opened == BASE else r.opened or NO_LAYER)
        assert (w.outcome, w.abort_reason) == (r.outcome, r.abort_reason)
        assert (w.split, w.ballot_stage, w.cast, w.balloted) == (r.split, r.ballot_stage, r.cast, r.balloted)
        assert (w.spoiled, w.screen_seed != NO_LAYER) == (r.spoiled or NO_LAYER, r.seed)
        assert not r.seed or self.seeds.setdefault(w.number, w.screen_seed) == w.screen_seed

    # ---- administration

    @rule(threshold=st.sampled_from([0, 0, 1, 2, 3, 4]), rounds=st.integers(1, 4), screened=st.booleans())
    def start_task(self, threshold: int, rounds: int, screened: bool) -> None:
        self.both(
            lambda: self.model.start_task(threshold, rounds, screened=screened),
            lambda: self.sites.start(threshold=threshold, rounds=rounds, screened=screened),
        )

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

    def number(self) -> int:
        """Number of the newest round."""
        return self.view.round.number
