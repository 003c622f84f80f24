"""Opening small sketches of single updates: the question of a round, and this site's part in the answer.

What is asked follows from the ledger alone: a key holder never answers what a message made up. Source: docs/screening.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import ProtocolError, SketchesClosed, UnusableUpdate
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sketch import SketchPlan, encode_sketch_share, open_sketches, position_plan, sketch, sketch_plan
from bahefl_flwr.records import ExclusionReason, LedgerView, ObjectKind, RoundPhase, RoundRecord, members_in
from bahefl_flwr.sealing import seal, sealing_context
from bahefl_flwr.site.keys import load_key_share
from bahefl_flwr.site.objects import keep, kept, put_kept, share_recipients
from bahefl_flwr.site.spoiled import spoiled_aggregate
from bahefl_flwr.site.state import Outcome, Request, Site, expect_quorum, expect_round, security_params
from bahefl_flwr.site.updates import Updates, ciphertexts, read_updates
from bahefl_flwr.store.manifest import Manifest

Sketches = NDArray[np.uint32]
NEVER_CAME = (ExclusionReason.MISSING, ExclusionReason.CORRUPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What key holders open in a round: the same few numbers of each of these updates.

    Attributes:
      plan: which numbers: random sums of all coefficients, or after a spoiled aggregate just the coefficients out of range.
      sources: manifests of the updates, by ascending member index.
      part_blocks: ciphertexts in each part of an update.
      name: the same for the same question, and for no other of the round.
    """

    plan: SketchPlan
    sources: Mapping[int, Manifest]
    part_blocks: tuple[int, ...]
    name: str

    @property
    def members(self) -> tuple[int, ...]:
        """Whose updates are asked about, ascending."""
        return tuple(self.sources)


def question(site: Site, view: LedgerView, r: RoundRecord, updates: Updates) -> Question:
    """What the ledger asks in this state of the round.

    Raises:
      SketchesClosed: the ledger has drawn no seed yet.
      ProtocolError: this site did not see the spoiled aggregate that the question is about; or there is no update to ask about.
    """
    params = security_params(site.settings, view.epoch)
    blocks = updates.part_blocks
    if not updates.sound:
        why = ", ".join(f"site {m} ({reason.name.lower()})" for m, reason in updates.unusable.items()) or "nobody committed"
        raise ProtocolError(f"round {r.number}: no committed update can be used, there is nothing to open: {why}")
    if any(r.spoiled):
        spoiled = spoiled_aggregate(site, view, r)
        sources = {m: updates.sound[m] for m in members_in(spoiled.included) if m in updates.sound}
        if not sources:
            raise ProtocolError(f"round {r.number}: no update of its spoiled aggregate can be read, there is nothing to open")
        plan = position_plan(spoiled.positions, params)
        return Question(plan=plan, sources=sources, part_blocks=blocks, name=f"audit-{r.spoiled.hex()[:16]}")
    if not any(r.screen_seed):
        raise SketchesClosed(f"round {r.number}: the ledger has drawn no seed for the sketches yet; nothing is opened")
    plan = sketch_plan(r.screen_seed, sum(blocks), site.settings.screening.groups, params)
    return Question(plan=plan, sources=updates.sound, part_blocks=blocks, name=f"sketches-{r.screen_seed.hex()[:16]}")


def release_sketches(site: Site, request: Request) -> Outcome:
    """As a key holder: compute this site's part of the answer, seal it to all sites, and name it on the ledger.

    Raises:
      UnusableUpdate: an update cannot be read; at the last try the others are answered for without it.
      ProtocolError: the request names no quorum of this site, or there is no question yet.
    """
    view, r = expect_round(site, request, RoundPhase.AGGREGATE)
    expect_quorum(site, view, r, request.quorum)
    outcome, me = Outcome(), site.me().index
    with outcome.timed("sketch"):
        updates = read_updates(site, view, r, outcome)
        late = [m for m, reason in updates.unusable.items() if reason in NEVER_CAME]
        if late and not request.last_try:
            message = f"round {r.number}: the updates of sites {late} are missing or altered in the store; put them again"
            raise UnusableUpdate(message, member=late[0], reason=updates.unusable[late[0]])
        asked = question(site, view, r, updates)
        _answer_once(site, view, r, asked)
        name = f"{asked.name}-{request.quorum:x}"
        manifest = kept(site, r.number, name) or keep(
            site, [_sealed_answer(site, view, r, asked, request.quorum)], run=view.task.run_digest, round=r.number,
            epoch=r.epoch, kind=ObjectKind.SKETCH, owner=site.address, name=name,
        )  # fmt: skip
    outcome.bytes["sketch"] = put_kept(site, r.number, name)
    if not any((s.member, s.quorum) == (me, request.quorum) for s in site.ledger.sketches(r.number)):
        outcome.gas += site.ledger.release_sketch(r.number, request.quorum, manifest.digest).gas_used
    return outcome


def _sealed_answer(site: Site, view: LedgerView, r: RoundRecord, asked: Question, quorum: int) -> bytes:
    params = security_params(site.settings, view.epoch)
    committee = members_in(view.epoch.committee)
    positions = tuple(committee.index(m) for m in members_in(quorum))
    c1 = sketches_of(site, r, asked, params)[:, 1]  # (sites, primes, N)
    share = open_sketches(c1, asked.plan, load_key_share(site, view.epoch), positions)
    answer = encode_sketch_share(share, asked.members, params)
    return seal(answer, share_recipients(site, view, r), sketch_context(view, r, site.address))


def sketch_context(view: LedgerView, r: RoundRecord, sender: str) -> bytes:
    """What an answer is sealed as."""
    return sealing_context(kind=ObjectKind.SKETCH, run=view.task.run_digest, round=r.number, epoch=r.epoch, sender=sender)


def _answer_once(site: Site, view: LedgerView, r: RoundRecord, asked: Question) -> None:
    """protocol rule 4: of one update this site opens one sketch, and no second one, whatever the ledger says later.

    An audit opens a few coefficients more, once for every spoiled aggregate that this very site saw.

    Raises:
      ProtocolError: it has answered for other sketches in this round.
    """
    key = (view.task.run_digest.hex(), r.number, asked.name if any(r.spoiled) else "sketches")
    recorded = site.journal.get(key)
    if recorded is not None and recorded["question"] != asked.name:
        raise ProtocolError(
            f"round {r.number}: this site already answered {recorded['question']}; it does not answer {asked.name}"
        )
    site.journal.put(key, {"question": asked.name})


def sketches_of(site: Site, r: RoundRecord, asked: Question, params: SecurityParams) -> Sketches:
    """Ciphertexts of all sketches, shape (sites, 2, primes, N)."""
    return np.stack([_sketch(site, r, asked, m, manifest, params) for m, manifest in asked.sources.items()])


def _sketch(site: Site, r: RoundRecord, asked: Question, member: int, manifest: Manifest, params: SecurityParams) -> Sketches:
    """Kept at the site: a key holder needs it again as a judge. What the disk has damaged is made again from the store."""
    path = site.round_folder(r.number) / f"{asked.name}-of-{manifest.digest.hex()}.sketch"
    # With other numbers than the others' it would take their right answers for wrong, and accuse them.
    digest, _, kept_bytes = (path.read_bytes() if path.exists() else b"").partition(b"\n")
    if digest == _digest(kept_bytes):
        known: Sketches = np.load(io.BytesIO(kept_bytes), allow_pickle=False)
        return known
    made = sketch(_parts(site, member, manifest, asked.part_blocks, params), asked.plan)
    buffer = io.BytesIO()
    np.save(buffer, made)
    atomic_write(path, _digest(buffer.getvalue()) + b"\n" + buffer.getvalue())
    return made


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _parts(site: Site, member: int, manifest: Manifest, blocks: tuple[int, ...], params: SecurityParams) -> Iterator[Sketches]:
    for i, count in enumerate(blocks):
        yield ciphertexts(site, member, manifest, i, count, params)
