"""Faults planted on purpose, in the driver, in a site or in the contract: each must break a promise within so many schedules.

A promise that no planted fault breaks may be one that nothing checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import Any
from unittest.mock import patch

from bahefl_flwr import driver
from bahefl_flwr.driver import Driver
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import RoundOutcome, RoundPhase
from bahefl_flwr.round import next_step
from bahefl_flwr.site import opening, training, verification
from bahefl_flwr.site.objects import put_kept
from bahefl_flwr.site.state import expect_round
from bahefl_flwr.steps import Advance, Step, Wait
from simulated.ledger import TimedModel
from simulated.plan import KINDS, Plan, plan

Change = tuple[object, str, object]
KILLS = ("killed", "everything")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A planted fault.

    Attributes:
      breaks: the promises that it may break. within: so many schedules, the first of these kinds, must suffice.
      changes: (owner, name, what to put there). model: the contract with it.
    """

    breaks: tuple[str, ...]
    within: int
    kinds: tuple[str, ...] = KINDS
    changes: tuple[Change, ...] = ()
    model: type[TimedModel] = TimedModel

    def plans(self) -> Iterator[Plan]:
        """The schedules that must suffice."""
        return islice((p for p in map(plan, count()) if p.kind in self.kinds), self.within)

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The package with the fault, within the block."""
        with ExitStack() as stack:
            for owner, name, replacement in self.changes:
                stack.enter_context(patch.object(owner, name, replacement))
            yield


# ---- in a site


def commits_before_it_records(site: Any, request: Any, make_client: Any, config: Any) -> Any:
    """`training.train`, but the journal comes after the ledger, and nobody looks whether it has committed."""
    view, r = expect_round(site, request, RoundPhase.COMMIT)
    me, key = site.me(), (request.run.hex(), r.number, "commit")
    journalled = site.journal.get(key) or training._make_update(site, request, view, me, make_client, config)
    outcome = training._commit(site, r, me, journalled)
    site.journal.put(key, journalled)
    return outcome


def uploads_at_once(real: Any) -> Callable[..., Any]:
    """`training._commit`, and the ciphertext goes with it."""

    def commit(site: Any, r: Any, me: Any, journalled: Any) -> Any:
        outcome = real(site, r, me, journalled)
        put_kept(site, r.number, training.UPDATE_NAME)
        return outcome

    return commit


def puts_its_share_first(real: Any) -> Callable[..., Any]:
    """`verification._release_share`, but the store comes before the ledger."""

    def release(site: Any, view: Any, r: Any, quorum: int, outcome: Any) -> None:
        name = f"share-{quorum:x}-{r.aggregate.hex()[:16]}"
        if not (site.round_folder(r.number) / name).exists():
            parts = verification._sealed_share(site, view, r, quorum)
            verification.keep(
                site, parts, run=view.task.run_digest, round=r.number, epoch=r.epoch, kind=verification.ObjectKind.SHARE,
                owner=site.address, name=name,
            )  # fmt: skip
            put_kept(site, r.number, name)
        real(site, view, r, quorum, outcome)

    return release


def trusts_what_it_confirmed(site: Any, view: Any, r: Any, base: Any, outcome: Any) -> Any:
    """`opening._model_after`, but a round that this site did not confirm leaves its model as it was."""
    path = site.folder / opening.CONFIRMED_FILE
    return opening.load_model(path) if path.exists() else base.at(r.number)


def appends_blindly(journal: Journal, text: str) -> None:
    """`Journal._append`, but a torn tail stays where it is."""
    from bahefl_flwr.journal import _frame

    with journal.path.open("ab", buffering=0) as file:
        file.write(_frame(text))
    journal._end = journal.path.stat().st_size


# ---- in the driver


def never(step: Step) -> Callable[..., Any]:
    """`next_step`, but one transaction is never sent."""

    def decide(view: Any, *arguments: Any) -> Any:
        command = next_step(view, *arguments)
        skipped = isinstance(command, Advance) and command.step is step
        return Wait(deadline=view.chain_time, members=(), why="forgotten") if skipped else command

    return decide


def forgets_the_last(real: Any) -> Callable[..., None]:
    """`Driver._report_ended`, but the newest round that ended is counted without being told of."""

    def report(self: Driver, view: Any) -> None:
        told = self._on_round_end
        ended = view.round.number if view.round.phase in (RoundPhase.FINALIZED, RoundPhase.ABORTED) else view.round.number - 1
        self._on_round_end = lambda r: told(r) if r.number < ended else None
        real(self, view)
        self._on_round_end = told

    return report


# ---- in the contract


class OneConfirmationIsEnough(TimedModel):
    """The first model that anybody names is the round's."""

    def confirm_opening(self, i: int | None, quorum: int, model: bytes, outcome: object = 0) -> None:
        super().confirm_opening(i, quorum, model, outcome)
        r = self.round
        if r.phase is RoundPhase.VERIFIED and not r.opened and outcome is not RoundOutcome.SPOILED:
            r.opened, r.outcome = model, outcome  # type: ignore[assignment]
            self.round_deadline = self.in_(self.config.open_grace_s)


class AbandonsInSilence(TimedModel):
    """A round that is abandoned says nothing."""

    def _stop_round(self, reason: str) -> None:
        super()._stop_round("")


BUGS: dict[str, Bug] = {
    "a site attests without recomputing": Bug(
        breaks=("P2",), within=25, kinds=("cheats",), changes=((verification, "_recompute", lambda *_: True),)
    ),
    "a site puts its share before the ledger names it": Bug(
        breaks=("P2",), within=10, changes=((verification, "_release_share", puts_its_share_first(verification._release_share)),)
    ),
    "a site puts whatever it keeps": Bug(breaks=("P2", "P3"), within=100, changes=((training, "_may_be_read", lambda *_: True),)),
    "a site commits before it records, and looks nowhere": Bug(
        breaks=("P3",), within=150, kinds=KILLS, changes=((training, "train", commits_before_it_records),)
    ),
    "a site uploads before commits have closed": Bug(
        breaks=("P3",), within=10, changes=((training, "_commit", uploads_at_once(training._commit)),)
    ),
    "a site takes for opened what it did not confirm": Bug(
        breaks=("P1",), within=30, changes=((opening, "_model_after", trusts_what_it_confirmed),)
    ),
    "a journal writes behind a torn record": Bug(
        breaks=("P1", "P3", "P4"), within=100, kinds=KILLS, changes=((Journal, "_append", appends_blindly),)
    ),
    "the driver forgets a round that ended": Bug(
        breaks=("P1",), within=10, changes=((Driver, "_report_ended", forgets_the_last(Driver._report_ended)),)
    ),
    "the driver never abandons": Bug(breaks=("P4",), within=45, changes=((driver, "next_step", never(Step.ABANDON)),)),
    "the driver never closes commits": Bug(
        breaks=("P4",), within=25, changes=((driver, "next_step", never(Step.CLOSE_COMMITS)),)
    ),
    "the driver never replaces a coordinator": Bug(
        breaks=("P4",), within=25, changes=((driver, "next_step", never(Step.REPLACE_COORDINATOR)),)
    ),
    "the driver lets ceremonies last": Bug(breaks=("P4",), within=10, changes=((driver, "next_step", never(Step.EXPIRE_EPOCH)),)),
    "one confirmation finalises a round": Bug(breaks=("P1",), within=30, model=OneConfirmationIsEnough),
    "a round is abandoned without a reason": Bug(breaks=("P4",), within=30, model=AbandonsInSilence),
}
