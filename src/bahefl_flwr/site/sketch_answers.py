"""The key holders' answers about sketches: which quorum's are taken, whether they prove right, and the numbers they open.

A quorum's answers are fixed by digests on the ledger, and so is whose updates they are about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bahefl_flwr.errors import MalformedCiphertext, ProtocolError, SealError, ShareError, SketchesClosed, StoreError, WrongShare
from bahefl_flwr.he.sketch import Opened, SketchShare, combine_sketches, decode_sketch_share, verify_sketch_share
from bahefl_flwr.records import ExclusionReason, LedgerView, ObjectKind, RoundRecord, ShareRecord, mask_of, members_in
from bahefl_flwr.site.dispute import accuse
from bahefl_flwr.site.keys import has_key_share, load_key_share
from bahefl_flwr.site.sketches import NEVER_CAME, Question, sketch_context, sketches_of
from bahefl_flwr.site.state import Outcome, Site, security_params


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What the members of one quorum say, not verified yet.

    Attributes:
      about: whose updates, ascending. shares: the opened numbers of each committee position of the quorum.
    """

    quorum: int
    about: tuple[int, ...]
    shares: Mapping[int, SketchShare]


def opened_sketches(site: Site, view: LedgerView, r: RoundRecord, asked: Question, outcome: Outcome) -> tuple[Question, Opened]:
    """What a quorum answered for, and the numbers it opened, rows in the order of that question's members; all proved right.

    A quorum may have left out an update that came into the store after it had answered. Its word counts: one of its members at
    least is honest, and it stands on the ledger, the same for all who look later. Taken is the first quorum that answered for
    exactly the updates that `_expected` names, failing that the first that answered for some of the sound ones.

    Raises:
      SketchesClosed: there is no such quorum; says what is wrong with each. Whoever answered wrongly has been accused.
    """
    expected = _expected(r, asked)
    problems: list[str] = []
    answers = list(_complete_answers(site, view, r, asked, problems))
    for each in sorted(answers, key=lambda a: a.about != expected):
        with _noted(site, view, problems):
            narrowed = _about(asked, each.about, r)
            return narrowed, _combined(site, view, r, narrowed, each)
    outcome.notes += problems
    why = "; ".join(problems) or "no quorum of key holders has answered yet"
    raise SketchesClosed(f"round {r.number}: the sketches of sites {list(asked.members)} cannot be opened: {why}")


def never_came(r: RoundRecord) -> dict[int, ExclusionReason]:
    """Whom the aggregate on the ledger leaves out because no intact object was there in time; nobody before there is one."""
    left_out = members_in(r.committed & ~r.included)
    return {m: ExclusionReason(b) for m, b in zip(left_out, r.reasons, strict=False) if b in NEVER_CAME}


def _expected(r: RoundRecord, asked: Question) -> tuple[int, ...]:
    """For a coordinator all sound updates. For a judge those that the coordinator had: more may have come since."""
    absent = never_came(r)
    return tuple(m for m in asked.members if m not in absent)


def _about(asked: Question, members: tuple[int, ...], r: RoundRecord) -> Question:
    """The question about these updates only.

    Raises:
      ProtocolError: some of them cannot be read here, or the question is an audit's, which must show every update of a sum.
    """
    if members != asked.members and (any(r.spoiled) or not set(members) <= set(asked.members)):
        raise ProtocolError(f"its quorum answered about sites {list(members)}, sound here are {list(asked.members)}")
    return replace(asked, sources={m: asked.sources[m] for m in members})


def _complete_answers(site: Site, view: LedgerView, r: RoundRecord, asked: Question, problems: list[str]) -> Iterator[_Answers]:
    """Of every quorum that is complete; those with an accused member last: an accusation may be a slander."""
    released = site.ledger.sketches(r.number)
    complete = [q for q in dict.fromkeys(s.quorum for s in released) if mask_of(s.member for s in released if s.quorum == q) == q]
    for quorum in sorted(complete, key=lambda q: bool(q & view.epoch.accused)):
        with _noted(site, view, problems):
            found = {s.member: _answer(site, view, r, asked, s) for s in released if s.quorum == quorum}
            yield _agreed(view, quorum, found)


def _agreed(view: LedgerView, quorum: int, found: Mapping[int, tuple[tuple[int, ...], SketchShare]]) -> _Answers:
    """The answers of one quorum, about the same updates.

    Raises:
      ProtocolError: they are not. One member found an update that another did not: neither proves anything.
    """
    about, *others = {about for about, _ in found.values()}
    if others:
        told = ", ".join(f"site {m} about {list(members)}" for m, (members, _) in found.items())
        raise ProtocolError(f"the quorum {list(members_in(quorum))} answered about different updates: {told}")
    committee = members_in(view.epoch.committee)
    return _Answers(quorum=quorum, about=about, shares={committee.index(m): share for m, (_, share) in found.items()})


def _answer(
    site: Site, view: LedgerView, r: RoundRecord, asked: Question, released: ShareRecord
) -> tuple[tuple[int, ...], SketchShare]:
    """One key holder's answer: whose updates it is about, and its share.

    Raises:
      StoreError: it cannot be read. WrongShare: it cannot be opened or parsed.
    """
    params, address = security_params(site.settings, view.epoch), site.addresses()[released.member]
    committee = members_in(view.epoch.committee)
    positions = tuple(committee.index(m) for m in members_in(released.quorum))
    manifest = site.store.expect(
        released.digest, run=view.task.run_digest, round=r.number, site=address, epoch=r.epoch, kind=ObjectKind.SKETCH
    )
    sealed = site.store.part(manifest.parts[0], of=manifest)
    with _held_against(r, released.member):
        answer = site.identity.unseal(sealed, sketch_context(view, r, address))
        return decode_sketch_share(answer, committee.index(released.member), positions, asked.plan.groups, params)


def _combined(site: Site, view: LedgerView, r: RoundRecord, asked: Question, answers: _Answers) -> Opened:
    """The opened numbers of the question's updates.

    Raises:
      WrongShare: a share is not what its sender had to answer; names the sender.
    """
    params = security_params(site.settings, view.epoch)
    own = load_key_share(site, view.epoch) if has_key_share(site, view.epoch) else None
    sketches = sketches_of(site, r, asked, params)  # (sites, 2, primes, N)
    committee, positions = members_in(view.epoch.committee), tuple(sorted(answers.shares))
    for position, share in answers.shares.items():
        with _held_against(r, committee[position]):
            verify_sketch_share(sketches[:, 1], share, position, positions, asked.plan, own)
    return combine_sketches(sketches, {p: share.values for p, share in answers.shares.items()}, positions, asked.plan)


@contextmanager
def _held_against(r: RoundRecord, member: int) -> Iterator[None]:
    try:
        yield
    except (ShareError, SealError, MalformedCiphertext) as error:
        raise WrongShare(f"round {r.number}, sketches by site {member}: {error}", member=member) from error


@contextmanager
def _noted(site: Site, view: LedgerView, problems: list[str]) -> Iterator[None]:
    """What is wrong with a quorum is noted down, and whoever is to blame accused; another quorum may still do."""
    try:
        yield
    except WrongShare as wrong:
        problems.append(str(wrong))
        _accuse(site, view, wrong.member)
    except (StoreError, ProtocolError) as error:
        problems.append(str(error))


def _accuse(site: Site, view: LedgerView, member: int) -> None:
    me = site.me().index
    if view.epoch.committee >> me & 1 and member != me:
        accuse(site, view, site.addresses()[member], "its opening of the sketches is wrong")
