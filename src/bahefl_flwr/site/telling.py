"""What a site tells its own operator of each message: log lines that say what they belong to, and metrics.

Nothing here leaves the site, and nothing secret gets into it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flwr.app import Context, Message

from bahefl_flwr import logs, metrics
from bahefl_flwr.errors import BaheflError, SettingsError
from bahefl_flwr.metrics import Done
from bahefl_flwr.site.state import Outcome
from bahefl_flwr.steps import Action

_OF_EPOCHS = {
    Action.COMMIT_SEEDS, Action.REVEAL_SEEDS, Action.PUBLISH_KEY_PARTS, Action.UPLOAD_KEY_PARTS, Action.CONFIRM_KEY, Action.JUDGE,
}  # fmt: skip
_OF_NOTHING = {Action.HELLO}

_log = logging.getLogger("bahefl_flwr.site")


class Telling:
    """What is known of one message so far."""

    def __init__(self, action: str, node: str) -> None:
        self._action, self._site = action, node
        self._round: int | None = None
        self._started = time.perf_counter()
        self._folder = os.environ.get(metrics.VARIABLE, "")

    def begin(self) -> None:
        """Log as this process's environment asks.

        Raises:
          SettingsError: it asks for what there is not.
        """
        logs.configure(os.environ.get(logs.VARIABLE, ""))

    def number(self, number: int) -> None:
        """The round or key epoch that the message is about."""
        if self._action in _OF_EPOCHS:
            logs.belong(epoch=number)
        elif self._action not in _OF_NOTHING:
            self._round = number
            logs.belong(round=number)

    def by(self, address: str) -> None:
        """The site, once its keys are open."""
        self._site = address
        logs.belong(site=address)

    def done(self, outcome: Outcome) -> None:
        """The action was carried out.

        Raises:
          SettingsError: metrics are asked for and cannot be kept.
        """
        spent = time.perf_counter() - self._started
        figures = {"seconds": round(spent, 3), "bytes": sum(outcome.bytes.values()), "gas": outcome.gas}
        _log.info("done in %.1f s", spent, extra=figures)
        self._count(outcome.bytes, outcome.gas)

    def failed(self, error: BaheflError) -> None:
        """The action was refused, or failed."""
        _log.warning("%s refused or failed: %s", self._action, error, exc_info=True)
        with suppress(SettingsError):
            self._count({}, 0, error)

    def _count(self, sizes: dict[str, int], gas: int, error: BaheflError | None = None) -> None:
        name = type(error).__name__ if error else ""
        spent = time.perf_counter() - self._started
        done = Done(action=self._action.rpartition(".")[2], seconds=spent, round=self._round, bytes=sizes, gas=gas, error=name)
        metrics.count_action(self._folder, self._site, done)


@contextmanager
def telling(message: Message, context: Context) -> Iterator[Telling]:
    """Log lines of this block belong to this message."""
    action = message.metadata.message_type
    with logs.belonging(run=str(context.run_id), phase=action.rpartition(".")[2]):
        yield Telling(action, f"node {context.node_id}")
