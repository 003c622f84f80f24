"""The driver's loop: read the ledger, ask `next_step` what to do, do it, until the task is over.

It relays and waits. Everything it remembers may be lost: a new driver continues where the ledger stands.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from flwr.serverapp import Grid

from bahefl_flwr import logs
from bahefl_flwr.errors import RunFailed, TransactionReverted
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, RoundPhase, RoundRecord, ShareRecord, mask_of, members_in
from bahefl_flwr.replies import Config, Reply, ask, request_config
from bahefl_flwr.round import MAX_ASKS, is_over, next_step
from bahefl_flwr.settings import Scalar
from bahefl_flwr.steps import Action, Advance, Ask, Asked, Done, Request, Step, Stuck, Wait, deed, occasion

MAX_ABANDONED_IN_A_ROW = 3
MAX_REFUSALS_IN_A_ROW = 20
_POLL_S = 0.3
# Refusals are tried again ever more slowly: 20 of them take half a minute, several blocks of any chain in use.
_REFUSED_POLL_S = 2.0

_log = logging.getLogger("bahefl_flwr.driver")

OnReplies = Callable[[LedgerView, Ask, Mapping[int, Reply], float], None]
OnRoundEnd = Callable[[RoundRecord], None]
ClientConfig = Callable[[LedgerView, Action, int], Mapping[str, Scalar]]


class Driver:
    """One run of the loop.

    Args:
      nodes: Flower node id of every member index.
      client_config: what a member's NumPyClient is to be told.
      on_replies: told of every message phase: view before it, command, replies by member, wall seconds.
      on_round_end: told of every round that ended, finalised or abandoned, in order.
      screened: whether the coordinator decides from openings of the updates' sketches.
      reported: round up to which all ends have been told of.
      fraction: share of the active sites selected for a round, and `least` of them at least (the contract's minimum included).
    """

    def __init__(
        self,
        ledger: FederationLedger,
        grid: Grid,
        nodes: Mapping[int, int],
        *,
        client_config: ClientConfig,
        on_replies: OnReplies,
        on_round_end: OnRoundEnd,
        screened: bool,
        fraction: float = 1.0,
        least: int = 2,
        reported: int = 0,
    ) -> None:
        self._ledger, self._grid, self._nodes = ledger, grid, dict(nodes)
        self._client_config, self._on_replies, self._on_round_end = client_config, on_replies, on_round_end
        self._screened, self._fraction, self._least = screened, fraction, least
        self._times: Counter[Request] = Counter()
        self._answered: set[Request] = set()
        self._failed: set[Request] = set()
        self._away: dict[Request, int] = {}
        self._refused: Counter[tuple[Step, int, str]] = Counter()
        self._reported = reported
        self._selected = 0
        self._abandoned_in_a_row = 0
        self._waiting_for = ""

    def run(self) -> None:
        """Drive the open task to its end.

        Raises:
          RunFailed: the ledger refuses the same step again and again, or stays in a state that the contract never stays in.
        """
        over = False
        while not over:
            view = self._ledger.view()
            with logs.belonging(round=view.round.number, epoch=view.epoch.epoch):
                over = self._go_on(view)

    def _go_on(self, view: LedgerView) -> bool:
        """Do what is next; true once the task is over."""
        if self._report_ended(view) or self._select(view):
            return False
        asked = Asked(times=self._times, answered=self._answered, failed=self._failed)
        command = next_step(view, self._shares(view), asked, self._sketches(view))
        match command:
            case Ask():
                with logs.belonging(phase=command.action.rpartition(".")[2]):
                    self._ask(view, command)
            case Advance():
                with logs.belonging(phase=command.step.value):
                    self._advance(command)
            case Wait():
                self._wait(view, command)
            case Stuck():
                raise RunFailed(f"the ledger is stuck: {command.why}; check that the chain runs this version's contract")
        return isinstance(command, Done)

    def _shares(self, view: LedgerView) -> tuple[ShareRecord, ...]:
        verifying = view.round.phase in (RoundPhase.VERIFY, RoundPhase.VERIFIED)
        return self._ledger.shares(view.round.number) if verifying else ()

    def _sketches(self, view: LedgerView) -> tuple[ShareRecord, ...] | None:
        if not self._screened:
            return None
        return self._ledger.sketches(view.round.number) if view.round.phase is RoundPhase.AGGREGATE else ()

    def _ask(self, view: LedgerView, command: Ask) -> None:
        requests = {m: command.request(m) for m in command.members}
        self._times.update(requests.values())
        reachable = {m: self._nodes[m] for m in command.members if m in self._nodes}
        configs = {node: self._config(view, command, requests[m]) for m, node in reachable.items()}
        started = time.monotonic()
        by_node = ask(
            self._grid, command.action, configs, group=str(command.number), timeout_s=command.deadline - view.chain_time,
            is_over=lambda: is_over(command, self._ledger.view()),
        )  # fmt: skip
        replies = {m: by_node[node] for m, node in reachable.items()}
        self._answered.update(requests[m] for m, reply in replies.items() if reply.ok)
        self._failed.update(requests[m] for m, reply in replies.items() if not (reply.ok or reply.silent))
        self._away.update({requests[m]: self._nodes[m] for m, reply in replies.items() if reply.away})
        for member, reply in replies.items():
            if not reply.ok:
                what = (occasion(command.action, command.number), member, deed(command.action), reply.error)
                _log.warning("%s: site %d did not %s: %s", *what, extra={"member": member})
        spent = time.monotonic() - started
        answered = sum(reply.ok for reply in replies.values())
        _log.info("%d of %d sites answered", answered, len(command.members), extra={"seconds": round(spent, 3)})
        self._on_replies(view, command, replies, spent)

    def _config(self, view: LedgerView, command: Ask, request: Request) -> Config:
        return request_config(
            self._client_config(view, command.action, request.member),
            run=view.task.run_digest,
            number=command.number,
            quorum=command.quorum,
            last_try=command.owners_asked or self._times[request] >= MAX_ASKS,
            block=view.block_number,
        )

    def _advance(self, command: Advance) -> None:
        send = {
            Step.EXPIRE_EPOCH: self._ledger.expire_epoch,
            Step.CLOSE_COMMITS: self._ledger.close_commits,
            Step.DRAW_SEED: self._ledger.draw_seed,
            Step.CLOSE_BALLOTS: self._ledger.close_ballots,
            Step.REPLACE_COORDINATOR: self._ledger.replace_coordinator,
            Step.FINALIZE: self._ledger.finalize,
        }
        _log.info("%s %d", command.step, command.number)
        try:
            if command.step is Step.ABANDON:
                self._ledger.abandon(command.number, command.reason)
            else:
                send[command.step](command.number)
            self._refused.clear()
        except TransactionReverted as error:
            self._on_refusal(command, error)

    def _on_refusal(self, command: Advance, error: TransactionReverted) -> None:
        """Somebody else was faster, or the block's clock is a second behind ours: the next reading tells. But not for ever."""
        if error.reason == "TooFewRevealed":
            # The contract's majority may be larger than half (ledger.quorum_percent); the round's deadline ends the wait.
            time.sleep(_REFUSED_POLL_S)
            return
        refusal = (command.step, command.number, error.reason)
        times = self._refused[refusal] + 1
        self._refused = Counter({refusal: times})
        _log.info("%s %d refused by the ledger: %s", command.step, command.number, error)
        if times >= MAX_REFUSALS_IN_A_ROW:
            raise RunFailed(f"the ledger refused {command.step} {command.number} {times} times in a row: {error}") from error
        time.sleep(min(_POLL_S * times, _REFUSED_POLL_S))

    def _wait(self, view: LedgerView, command: Wait) -> None:
        if self._is_somebody_back():
            return
        left_s = command.deadline - view.chain_time
        for_whom = f"{command.why}: waiting for site(s) {list(command.members)}"
        if for_whom != self._waiting_for:
            _log.warning("%s, at most %d s", for_whom, left_s)
            self._waiting_for = for_whom
        time.sleep(_POLL_S)

    def _is_somebody_back(self) -> bool:
        """Whether a site that was away is connected again: it is asked once more, however often it was asked in vain."""
        connected = set(self._grid.get_node_ids()) if self._away else set()
        back = [request for request, node in self._away.items() if node in connected]
        for request in back:
            del self._away[request]
            self._times[request] = min(self._times[request], MAX_ASKS - 1)
        return bool(back)

    def _report_ended(self, view: LedgerView) -> bool:
        """Tell of the rounds that ended since the last look. True if that ended the task, and so changed the ledger."""
        ended = (RoundPhase.FINALIZED, RoundPhase.ABORTED)
        newest = view.round.number if view.round.phase in ended else view.round.number - 1
        for number in range(self._reported + 1, newest + 1):
            if number == 0:
                continue
            r = self._ledger.round(number)
            self._on_round_end(r)
            self._abandoned_in_a_row = self._abandoned_in_a_row + 1 if r.phase is RoundPhase.ABORTED else 0
        self._reported = max(self._reported, newest)
        if self._abandoned_in_a_row >= MAX_ABANDONED_IN_A_ROW and view.task.open:
            last = self._ledger.round(newest).abort_reason
            end_task(self._ledger, f"{self._abandoned_in_a_row} rounds in a row were abandoned, the last because: {last}")
            return True
        return False

    def _select(self, view: LedgerView) -> bool:
        """With `fraction` below 1, name the round's sites before anybody has answered. True if the ledger changed."""
        r = view.round
        open_ = r.phase is RoundPhase.COMMIT and view.epoch.phase is EpochPhase.ACTIVE
        if self._fraction >= 1 or not open_ or r.committed | r.declined or self._selected == r.number:
            return False
        self._selected = r.number
        chosen = self._choose(view)
        if chosen == r.selected:
            return False
        try:
            self._ledger.select_sites(r.number, chosen)
        except TransactionReverted as error:
            _log.warning("round %d: selecting %s was refused, so all take part: %s", r.number, members_in(chosen), error)
            return False
        return True

    def _choose(self, view: LedgerView) -> int:
        candidates = members_in(view.round.selected & view.active)
        count = max(self._least, round(self._fraction * view.active.bit_count()))
        # Seeded by the run and the round, so that the choice can be repeated.
        draw = random.Random(view.task.run_digest + view.round.number.to_bytes(4, "big"))
        return mask_of(draw.sample(candidates, min(len(candidates), count)))


def end_task(ledger: FederationLedger, reason: str) -> None:
    """Stop the task with a reason; no error where it has ended by itself meanwhile."""
    try:
        ledger.end_task(reason)
    except TransactionReverted as error:
        if error.reason != "NoTaskOpen":
            raise
        _log.info("the task has ended by itself before it could be stopped: %s", reason)
