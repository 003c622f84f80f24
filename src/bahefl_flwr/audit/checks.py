"""The numbered list of checks. docs/audit.md has the same numbers; every number has a test that breaks exactly it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.election import Recount
from bahefl_flwr.audit.epoch_checks import ceremonies
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.model_checks import model_chain
from bahefl_flwr.audit.object_checks import bound_manifests, exact_sums, intact_objects
from bahefl_flwr.audit.opening_checks import confirmed_openings, decryptions
from bahefl_flwr.audit.round_checks import commitments, inclusions, membership, votes
from bahefl_flwr.audit.screening_checks import decisions, not_judged

_NO_MODEL = "not done: no summary.json and no model file to compare (--model FILE); the rounds' models follow each other"

_NOT_SCREENED = "not done: no update of these rounds was screened (screening=off)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the list.

    Attributes:
      title: what holds if it passes. meaning: what it means if it fails. remedy: what to do then.
      run: the findings. skipped: why it cannot be done for this case, "" if it can.
      incomplete: what of it cannot be done for this case; it has then not passed, but what it finds counts.
    """

    number: int
    title: str
    meaning: str
    remedy: str
    run: Callable[[Case], Iterator[Finding]]
    skipped: Callable[[Case], str] = lambda _: ""
    incomplete: Callable[[Case], str] = lambda _: ""


def _chain(case: Case) -> Iterator[Finding]:
    """1. The blocks link, every transaction is signed, and executing them again gives the same states and events."""
    yield from (Finding(message=problem) for problem in case.chain_problems)


def _code(case: Case) -> Iterator[Finding]:
    """2. The contract's code is, byte for byte, the one this package was built with."""
    if case.code_problem:
        yield Finding(message=case.code_problem)


def _election(case: Case) -> Iterator[Finding]:
    """10. Every coordinator is the one that the revealed onion layers, the entropy and the scores elect."""
    return (f for f in Recount(case.evidence).findings() if case.judges(f.round))


CHECKS: tuple[Check, ...] = (
    Check(
        number=1,
        title="the chain is whole: its blocks link, and executing its transactions again gives the same states",
        meaning="the ledger's file was altered after the fact; nothing read from it can be relied on",
        remedy="get the ledger from another copy, a site's node or an earlier bundle, and compare the newest block's hash",
        run=_chain,
        skipped=lambda case: "" if case.executed else "over JSON-RPC the node's own consensus answers for the chain",
    ),
    Check(
        number=2,
        title="the contract is this version's FederationLedger, byte for byte",
        meaning="the rules on this ledger are not the audited ones; the other checks are not done",
        remedy="audit with the package version that deployed the contract; if that is this one, do not rely on the run",
        run=_code,
    ),
    Check(
        number=3,
        title="every act is by a member of that time, signed by itself",
        meaning="somebody who did not belong to the federation took part in it",
        remedy="ask the registrar who whitelisted the account; leave the round's model out of use",
        run=membership,
    ),
    Check(
        number=4,
        title="one commitment per site and round, before commits closed, and no update in two sums",
        meaning="a site could choose its update after seeing others', or passed on another's",
        remedy="do not use models from this round on; suspend the site",
        run=commitments,
    ),
    Check(
        number=5,
        title="every object that the outcome rests on is in the store, byte for byte",
        meaning="an object was lost or altered after it was named; what depends on it cannot be proved",
        remedy="have the site put the object again from its own copy, or restore the store, then audit again",
        run=intact_objects,
    ),
    Check(
        number=6,
        title="every manifest names its run, round, site, key epoch, kind and size",
        meaning="an object of another site, round or run was passed off as this one",
        remedy="suspend the site that named it; do not use models from this round on",
        run=bound_manifests,
    ),
    Check(
        number=7,
        title="aggregates hold committed updates only, enough of them, and say why others are left out",
        meaning="the model holds updates that nobody committed, or so few that a single one could be seen",
        remedy="do not use models from this round on; the coordinator and the sites that voted for it are at fault",
        run=inclusions,
    ),
    Check(
        number=8,
        title="every aggregate is, bit for bit, the sum of the updates in it",
        meaning="the coordinator added something else, and the sites that voted for it did not notice or took part",
        remedy="do not use models from this round on; the coordinator and the sites that voted for it are at fault",
        run=exact_sums,
        skipped=lambda case: "" if case.recompute else "add --recompute",
    ),
    Check(
        number=9,
        title="every verified aggregate has the votes of a majority of the sites that committed",
        meaning="an aggregate was used that no majority had recomputed",
        remedy="do not use models from this round on",
        run=votes,
    ),
    Check(
        number=10,
        title="every coordinator is the one that the revealed onion layers elect",
        meaning="a coordinator was put into office instead of being elected",
        remedy="compare the ledger with a site's own node; if they agree, tell the package's authors: the contract is wrong",
        run=_election,
    ),
    Check(
        number=11,
        title="shares were released after verification only, by key holders, and one aggregate per round was opened",
        meaning="a sum was decrypted that nobody had checked, or two sums whose difference shows single updates",
        remedy="renew the keys (bahefl keys renew); tell the sites of that round that their updates may have been seen",
        run=decryptions,
    ),
    Check(
        number=12,
        title="every finalised model was confirmed by a majority of the sites that committed",
        meaning="sites may have gone on from different models",
        remedy="compare the sites' model files (--model); go back to the last round that passes",
        run=confirmed_openings,
    ),
    Check(
        number=13,
        title="every round starts from the model before it, and the final model is the last one confirmed",
        meaning="a model was exchanged between two rounds or after the run, or the ledger's newest blocks are missing",
        remedy="take the model from a site whose file passes (--model)",
        run=model_chain,
        incomplete=lambda case: "" if case.claims else _NO_MODEL,
    ),
    Check(
        number=14,
        title="every key in use was made by its whole committee, step by step, from parts that agree",
        meaning="a key holder could have chosen the collective key, or be missing from it",
        remedy="renew the keys (bahefl keys renew) before the next round",
        run=ceremonies,
    ),
    Check(
        number=15,
        title="every decision about whose update counts follows from the figures on record, and every outcome from the ballots",
        meaning="an update was left out, weighed or preferred against the rules, and the sites that voted for it did not notice",
        remedy="do not use models from this round on; the coordinator and the sites that voted for it are at fault",
        run=decisions,
        skipped=lambda case: "" if any(case.evidence.task_of(r.task).screened for r in case.rounds()) else _NOT_SCREENED,
        incomplete=not_judged,
    ),
)
