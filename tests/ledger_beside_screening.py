"""Screening, halves, ballots and spoiled aggregates, on the contract and on its model side by side."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.records import RoundOutcome, members_in
from ledger_beside import MEMBER, MOSTLY, RARELY, SETS, SOMEBODY, Beside
from ledger_model import BASE
from ledger_sites import NO_LAYER, STRANGER, digest

CHOICE = st.sampled_from([0, 1, 1, 2, 2, 3])


class BesideScreening(Beside):
    """What screening adds to a round. `choices`: what each member cast last."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: dict[int, int] = {}

    # ---- layers, seed, sketches

    @rule(i=SOMEBODY, layer=MOSTLY)
    def reveal(self, i: int | None, layer: bool) -> None:
        shown = self.sites.layer(i) if layer and i is not None else digest("no layer")
        self.both(lambda: self.model.reveal(i, layer=layer), lambda: self.by(i).reveal(self.number(), shown))

    @rule()
    def everybody_reveals(self) -> None:
        for i in members_in(self.view.round.committed & ~self.view.round.revealed & self.view.active):
            self.reveal(i, layer=True)

    @rule()
    def draw_seed(self) -> None:
        self.both(self.model.draw_seed, lambda: self.sites.stranger.draw_seed(self.number()))

    @rule(i=SOMEBODY, quorum=SETS)
    def release_sketch(self, i: int | None, quorum: int) -> None:
        self.both(
            lambda: self.model.release_sketch(i, quorum),
            lambda: self.by(i).release_sketch(self.number(), quorum, digest("sketch", i)),
        )
        named = [(s.member, s.quorum) for s in self.sites.admin.sketches(self.number())]
        assert sorted(named) == sorted(self.model.round.sketches)

    @rule(skip=st.integers(0, 2))
    def a_quorum_sketches(self, skip: int) -> None:
        able = members_in(self.view.epoch.committee & ~self.view.task.excluded)
        quorum = (able[skip:] + able[:skip])[: self.view.epoch.threshold]
        for i in quorum:
            self.release_sketch(i, sum(1 << j for j in quorum))

    # ---- halves and ballots

    @rule(split=SETS, left_out=st.one_of(st.just(0), SETS))
    def submit_halves(self, split: int, left_out: int) -> None:
        r = self.view.round
        included = r.committed & ~left_out
        self.submit(r.coordinator, included, split & included if split % 4 else split)

    def submit(self, i: int | None, included: int, split: int) -> None:
        """Submit an aggregate, with a weight or a reason for every committed update."""
        r = self.view.round
        weights, reasons = bytes([1]) * included.bit_count(), bytes([1]) * (r.committed & ~included).bit_count()
        self.both(
            lambda: self.model.submit_aggregate(i, included, split),
            lambda: self.by(i).submit_aggregate(r.number, digest("sum", r.attempt), 1, included, split, weights, reasons),
        )

    @rule(i=SOMEBODY, choice=CHOICE)
    def cast_ballot(self, i: int | None, choice: int) -> None:
        fresh = i is not None and not self.view.round.cast >> i & 1
        self.both(
            lambda: self.model.cast_ballot(i), lambda: self.by(i).cast_ballot(self.number(), self.sealed(i, choice))
        )  # fmt: skip
        if fresh and self.view.round.cast >> (i or 0) & 1:
            self.choices[i or 0] = choice

    @rule(first=st.integers(0, 2))
    def everybody_casts(self, first: int) -> None:
        for i in members_in(self.view.round.committed & ~self.view.round.cast & self.view.active):
            self.cast_ballot(i, (first + i) % 3)

    @rule(i=SOMEBODY, rightly=MOSTLY)
    def reveal_ballot(self, i: int | None, rightly: bool) -> None:
        choice = self.choices.get(i or 0, 0) if rightly else (self.choices.get(i or 0, 0) + 1) % 3
        self.both(
            lambda: self.model.reveal_ballot(i, choice, cast=rightly),
            lambda: self.by(i).reveal_ballot(self.number(), choice, digest("salt", i)),
        )
        shown = {b.member: b.choice for b in self.sites.admin.ballots(self.number()) if b.choice is not None}
        assert shown == self.model.round.choices

    @rule()
    def everybody_shows(self) -> None:
        for i in members_in(self.view.round.cast & ~self.view.round.balloted & self.view.active):
            self.reveal_ballot(i, rightly=True)

    @rule()
    def close_ballots(self) -> None:
        self.both(self.model.close_ballots, lambda: self.sites.stranger.close_ballots(self.number()))

    def sealed(self, i: int | None, choice: int) -> bytes:
        """A member's ballot as it is cast, or a stranger's."""
        account = STRANGER if i is None else self.sites.accounts[i]
        return ballot_commitment(self.number(), account.address, choice, digest("salt", i))

    # ---- results

    @rule(i=SOMEBODY, rightly=MOSTLY, odd=RARELY, base=st.booleans(), outcome=st.sampled_from(RoundOutcome))
    def confirm_opening(self, i: int | None, rightly: bool, odd: bool, base: bool, outcome: RoundOutcome) -> None:
        r = self.view.round
        quorum, named = r.open_quorum if rightly else 0b11, digest("odd" if odd else "model", r.number)
        if base and r.base != NO_LAYER:
            self.confirm(i, quorum, BASE, outcome)
        else:
            self.confirm(i, quorum, named, outcome)

    def confirm(self, i: int | None, quorum: int, model: bytes, outcome: RoundOutcome) -> None:
        """Confirm a result; BASE stands for the model that the round starts from."""
        named = self.view.round.base if model == BASE else model
        self.both(
            lambda: self.model.confirm_opening(i, quorum, model, outcome),
            lambda: self.by(i).confirm_opening(self.number(), quorum, named, outcome),
        )

    @rule(outcome=st.sampled_from(RoundOutcome), k=MEMBER)
    def everybody_confirms(self, outcome: RoundOutcome, k: int) -> None:
        r = self.view.round
        if outcome is RoundOutcome.SPOILED and k:
            outcome = RoundOutcome.WHOLE  # else few rounds would get far
        if not r.split and outcome is not RoundOutcome.SPOILED:
            outcome = RoundOutcome.WHOLE
        model = BASE if outcome is RoundOutcome.NONE else digest("model", r.number)
        for i in members_in(r.committed & ~r.confirmed):
            self.confirm(i, r.open_quorum, model, outcome)
