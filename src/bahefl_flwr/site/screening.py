"""A site's verdict on the updates of a round: which are added, with which weights, in one sum or in two.

Whoever judges comes to the same verdict, bit for bit; the coordinator's is recomputed by everybody before anything is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.he.sketch import sketch_of_vector
from bahefl_flwr.records import ExclusionReason, LedgerView, RoundRecord, mask_of, members_in
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.figures import Figures, Sketch, figures
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import Record, encode_record
from bahefl_flwr.screening.rules import Rules
from bahefl_flwr.screening.summary import summary
from bahefl_flwr.site.history import load_memory
from bahefl_flwr.site.opening import newest_model
from bahefl_flwr.site.sketch_answers import never_came, opened_sketches
from bahefl_flwr.site.sketches import Question, question
from bahefl_flwr.site.spoiled import out_of_range, spoiled_aggregate
from bahefl_flwr.site.state import Outcome, Site, security_params
from bahefl_flwr.site.updates import Updates, read_updates


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What this round's rules make of its updates.

    Attributes:
      weights: integer weight of every accepted site. reasons: of every committed site left out. Both by ascending member index.
      split: mask of the second half in a conflict, else 0.
      record: figures and decision in canonical bytes, the last part of the aggregate; empty where updates are not screened.
      shown: the same for people.
    """

    updates: Updates
    weights: Mapping[int, int]
    reasons: Mapping[int, ExclusionReason]
    split: int = 0
    record: bytes = b""
    shown: Mapping[str, Any] | None = None

    @property
    def included(self) -> int:
        """Mask of the accepted sites."""
        return mask_of(self.weights)

    @property
    def sums(self) -> tuple[tuple[int, ...], ...]:
        """The members of each sum that is made: all accepted ones, or in a conflict the two halves."""
        return tuple(members_in(mask) for mask in (self.included & ~self.split, self.split) if mask)


def judge(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Verdict:
    """Judge the committed updates; with screening, by the sketches that a quorum has opened.

    Raises:
      SketchesClosed: no quorum has opened the sketches of all sound updates.
      StoreError: this site lost what it has to judge by.
    """
    updates = read_updates(site, view, r, outcome)
    if site.settings.screening.kind == "off":
        return Verdict(updates=updates, weights=dict.fromkeys(updates.sound, 1), reasons=updates.unusable)
    asked = question(site, view, r, updates)
    record = _judged_again(site, view, r, asked, outcome) if any(r.spoiled) else _judged(site, view, r, asked, updates, outcome)
    decision = record.decision
    return Verdict(
        updates=updates, weights=decision.weights, reasons=decision.reasons, split=decision.split, record=encode_record(record),
        shown=summary(record),
    )  # fmt: skip


def _judged(site: Site, view: LedgerView, r: RoundRecord, asked: Question, updates: Updates, outcome: Outcome) -> Record:
    asked, opened = opened_sketches(site, view, r, asked, outcome)
    unusable = _unusable(r, updates, asked.members)
    weights = {u.member: u.weight for u in site.ledger.updates(r.number)}
    sketches = {
        m: Sketch(values=opened.values[i], weight=weights[m], in_range=bool(opened.in_range[i]))
        for i, m in enumerate(asked.members)
    }
    # A key holder that has not trained may be a model behind.
    model = newest_model(site, view, outcome)
    memory = load_memory(site.folder, model)
    references = {name: sketch_of_vector(v, asked.plan) for name, v in memory.references(model).items()}
    bits, least = security_params(site.settings, view.epoch).weight_bits, site.settings.federation.min_sites
    rules = Rules.of(site.settings.screening, full_weight=1 << bits, min_sites=least)
    return _decided(figures(sketches, r.weight_total, references), memory.figures, rules, unusable)


def _unusable(r: RoundRecord, updates: Updates, answered: Collection[int]) -> dict[int, ExclusionReason]:
    """Why each other committed update is out, where key holders answered for these alone.

    One that the aggregate on the ledger calls missing or corrupt, and that they did not have either, is out for that reason,
    whatever the store shows by now: else whoever withholds its upload for a while makes honest judges disagree. One that is
    sound here came too late.
    """
    late = dict.fromkeys((m for m in updates.sound if m not in answered), ExclusionReason.MISSING)
    told = {m: reason for m, reason in never_came(r).items() if m not in answered}
    return dict(sorted({**updates.unusable, **late, **told}.items()))


def _judged_again(site: Site, view: LedgerView, r: RoundRecord, asked: Question, outcome: Outcome) -> Record:
    """The decision of the spoiled aggregate and no other, without those whose update an audit proves to be out of range."""
    before = spoiled_aggregate(site, view, r).record
    asked, opened = opened_sketches(site, view, r, asked, outcome)
    shares = {u.member: u.weight / r.weight_total for u in site.ledger.updates(r.number)}
    guilty = out_of_range(opened, asked.members, shares, security_params(site.settings, view.epoch))
    if not guilty:
        raise ProtocolError(f"round {r.number}: its aggregate was out of range, but no update in it is; it cannot be made again")
    outcome.notes += [f"round {r.number}: an audit proves that the update of site {m} is out of range" for m in guilty]
    unusable = {**before.unusable, **dict.fromkeys(guilty, ExclusionReason.GARBAGE)}
    return _decided(before.figures, before.history, before.rules, unusable)


def _decided(found: Figures, history: History, rules: Rules, unusable: Mapping[int, ExclusionReason]) -> Record:
    decision = decide(found, history, rules, unusable)
    return Record(figures=found, history=history, rules=rules, unusable=unusable, decision=decision)
