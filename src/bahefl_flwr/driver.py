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

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, RoundPhase, RoundRecord, ShareRecord, mask_of, members_in
from bahefl_flwr.replies import Reply, ask
from bahefl_flwr.round import MAX_ASKS, Action, Advance, Ask, Asked, Done, Request, Step, Wait, next_step
from bahefl_flwr.settings import Scalar

MAX_ABANDONED_IN_A_ROW = 3
_POLL_S = 0.3
# A reply may come a little after the ledger's deadline and still tell what happened.
_REPLY_SLACK_S = 5.0

_log = logging.getLogger("bahefl_flwr.driver")

OnReplies = Callable[[LedgerView, Ask, Mapping[int, Reply], float], None]
OnRoundEnd = Callable[[RoundRecord], None]
ClientConfig = Callable[[LedgerView, Action], Mapping[str, Scalar]]


class Driver:
    """One run of the loop.

    Args:
      nodes: Flower node id of every member index.
      client_config: what the sites' NumPyClients are to be told.
      on_replies: told of every message phase: view before it, command, replies by member, wall seconds.
      on_round_end: told of every round that ended, finalised or abandoned, in order.
      fraction: share of the active sites selected for a round, and `least` of them at least.
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
        fraction: float = 1.0,
        least: int = 2,
    ) -> None:
        self._ledger, self._grid, self._nodes = ledger, grid, dict(nodes)
        self._client_config, self._on_replies, self._on_round_end = client_config, on_replies, on_round_end
        self._fraction, self._least = fraction, least
        self._times: Counter[Request] = Counter()
        self._answered: set[Request] = set()
        self._reported = ledger.view().round.number - 1
        self._selected = 0
        self._abandoned_in_a_row = 0
        self._waiting_for = ""

    def run(self) -> None:
        """Drive the open task to its end."""
        while True:
            view = self._ledger.view()
            self._report_ended(view)
            if self._select(view):
                continue
            command = next_step(view, self._shares(view), Asked(times=self._times, answered=self._answered))
            match command:
                case Done():
                    return
                case Ask():
                    self._ask(view, command)
                case Advance():
                    self._advance(command)
                case Wait():
                    self._wait(view, command)

    def _shares(self, view: LedgerView) -> tuple[ShareRecord, ...]:
        verifying = view.round.phase in (RoundPhase.VERIFY, RoundPhase.VERIFIED)
        return self._ledger.shares(view.round.number) if verifying else ()

    def _ask(self, view: LedgerView, command: Ask) -> None:
        requests = {m: _request(command, m) for m in command.members}
        self._times.update(requests.values())
        reachable = {m: self._nodes[m] for m in command.members if m in self._nodes}
        configs = {node: self._config(view, command, requests[m]) for m, node in reachable.items()}
        started = time.monotonic()
        timeout_s = max(1.0, command.deadline - view.chain_time + _REPLY_SLACK_S)
        by_node = ask(self._grid, command.action, configs, group=str(command.number), timeout_s=timeout_s)
        replies = {m: by_node[node] for m, node in reachable.items()}
        self._answered.update(requests[m] for m, reply in replies.items() if reply.ok)
        for member, reply in replies.items():
            if not reply.ok:
                _log.warning("round %d: site %d did not %s: %s", view.round.number, member, command.action, reply.error)
        self._on_replies(view, command, replies, time.monotonic() - started)

    def _config(self, view: LedgerView, command: Ask, request: Request) -> dict[str, Scalar | bytes]:
        return {
            **self._client_config(view, command.action),
            "bahefl-run": view.task.run_digest,
            "bahefl-number": command.number,
            "bahefl-quorum": f"{command.variant if command.action is Action.OPEN else 0:x}",
            "bahefl-last-try": self._times[request] >= MAX_ASKS,
        }

    def _advance(self, command: Advance) -> None:
        send = {
            Step.EXPIRE_EPOCH: self._ledger.expire_epoch,
            Step.CLOSE_COMMITS: self._ledger.close_commits,
            Step.REPLACE_COORDINATOR: self._ledger.replace_coordinator,
            Step.FINALIZE: self._ledger.finalize,
        }
        _log.info("%s %d", command.step, command.number)
        try:
            if command.step is Step.ABANDON:
                self._ledger.abandon(command.number, command.reason)
            else:
                send[command.step](command.number)
        except TransactionReverted as error:
            # Somebody else was faster, or the block's clock is a second behind ours: the next reading tells.
            _log.info("%s %d refused by the ledger: %s", command.step, command.number, error)
            time.sleep(_POLL_S)

    def _wait(self, view: LedgerView, command: Wait) -> None:
        left_s = command.deadline - view.chain_time
        for_whom = f"{command.why}: waiting for site(s) {list(command.members)}"
        if for_whom != self._waiting_for:
            _log.warning("%s, at most %d s", for_whom, left_s)
            self._waiting_for = for_whom
        time.sleep(_POLL_S)

    def _report_ended(self, view: LedgerView) -> None:
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
            self._ledger.end_task(f"{self._abandoned_in_a_row} rounds in a row were abandoned")

    def _select(self, view: LedgerView) -> bool:
        """With `fraction` below 1, name the round's sites before anybody commits. True if the ledger changed."""
        r = view.round
        fresh = r.phase is RoundPhase.COMMIT and view.epoch.phase is EpochPhase.ACTIVE and not r.committed
        if self._fraction >= 1 or not fresh or self._selected == r.number:
            return False
        self._selected = r.number
        active = members_in(view.active)
        count = min(len(active), max(self._least, round(self._fraction * len(active))))
        # Seeded by the run, so that a restarted driver would pick the same sites.
        chosen = random.Random(view.task.run_digest + r.number.to_bytes(4, "big")).sample(active, count)
        self._ledger.select_sites(r.number, mask_of(chosen))
        return True


def _request(command: Ask, member: int) -> Request:
    return Request(action=command.action, number=command.number, attempt=command.attempt, member=member, variant=command.variant)
