"""Flower's Grid in virtual time: messages are lost, come twice, late, in any order, to sites that are busy, hung or killed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from bahefl_flwr.records import LedgerView
from in_process_grid import unreached
from simulated.clock import VirtualTime
from simulated.plan import Plan
from simulated.site import Killed, SimulatedSite

NODE = 1000


class Network(Grid):
    """Between one driver after the other and the sites."""

    def __init__(
        self, plan: Plan, clock: VirtualTime, rng: random.Random, sites: Sequence[SimulatedSite], *,
        execute: Callable[[SimulatedSite, Message, LedgerView], Message], view: Callable[[], LedgerView],
        note: Callable[[str], None], trouble: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._plan, self._clock, self._rng, self._sites = plan, clock, rng, sites
        self._execute, self._view, self._note, self._trouble = execute, view, note, trouble
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._missed: dict[int, int] = {}

    # ---- Flower's interface

    def set_run(self, run: Run) -> None:
        """Not needed."""

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Sequence[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [NODE + s.index for s in self._sites if self._clock.now >= s.down_until]

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Sequence[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    # ---- the way of a message

    def _push(self, message: Message) -> str:
        number = str(next(self._ids))
        message.metadata.__dict__["_message_id"] = number
        site, plan = self._sites[message.metadata.dst_node_id - NODE], self._plan
        label = f"{number} {message.metadata.message_type} to site {site.index}"
        if self._happens(plan.loss):
            self._note(f"lost: {label}")
        elif self._happens(plan.refusal):
            self._note(f"refused by Flower: {label}")
            self._answer(message, Message(Error(1, "unavailable"), reply_to=message))
        else:
            self._clock.at(self._clock.now + self._delay(), lambda: self._arrive(site, message, label))
        if self._happens(plan.duplicate):
            again = self._clock.now + self._rng.choice((0.5, 5, 45, 120)) * self._rng.random()
            self._clock.at(again, lambda: self._arrive(site, message, f"again {label}"))
        return number

    def _arrive(self, site: SimulatedSite, message: Message, label: str) -> None:
        now, rng = self._clock.now, self._rng
        if now < site.down_until:
            fate = rng.random()
            if self._missed.get(site.index) == site.life or fate > 0.85:
                self._miss(site, message, label)
            elif fate < 0.7:
                self._clock.at(site.down_until + rng.random(), lambda: self._arrive(site, message, label))
            return
        begin = max(now, site.free_at)
        busy = rng.uniform(100, 400) if self._happens(self._plan.hang) else rng.uniform(0.05, 3)
        site.free_at = begin + busy
        life = site.life
        self._clock.at(begin, lambda: self._begin(site, message, label, busy, life))

    def _begin(self, site: SimulatedSite, message: Message, label: str, busy: float, life: int) -> None:
        """The site reads the ledger; what it then does takes effect `busy` seconds later."""
        view = self._view()
        self._clock.at(self._clock.now + busy, lambda: self._act(site, message, label, view, life))

    def _act(self, site: SimulatedSite, message: Message, label: str, view: LedgerView, life: int) -> None:
        plan = self._plan
        if life != site.life:
            return  # killed meanwhile, and the message with it
        if self._happens(plan.site_kill):
            site.fuse.light()
        site.fuse.unsure = plan.unsure if self._trouble() else 0.0
        self._note(f"executes {label}")
        try:
            reply = self._execute(site, message, view)
        except Killed:
            self._kill(site, message, label)
            return
        status = reply.content.get("status") if reply.has_content() else None
        if status is None or not status["ok"]:
            self._note(f"  fails: {status['message'] if status else reply.error.reason}"[:160])
        if self._happens(plan.loss):
            self._note(f"reply lost: {label}")
        else:
            self._answer(message, reply)

    def _kill(self, site: SimulatedSite, message: Message, label: str) -> None:
        rng = self._rng
        site.life += 1
        site.down_until = self._clock.now + rng.choice((1, 8, 40)) * rng.random()
        if rng.random() < self._plan.forget:
            self._note(f"site {site.index} loses its journal")
            site.lose_journal()
        site.free_at = site.down_until
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                self._clock.at(site.down_until + rng.random(), lambda: self._arrive(site, message, f"again {label}"))
            case 4 | 5:
                self._answer(message, Message(Error(2, "the ClientApp crashed"), reply_to=message))
            case 6:
                # Flower gives a node up only when it has been silent for some time.
                site.down_until = site.free_at = self._clock.now + rng.uniform(10, 40)
                self._miss(site, message, label)

    def _miss(self, site: SimulatedSite, message: Message, label: str) -> None:
        """Flower replies for a node that it does not hear of, and from then on until it is back."""
        self._missed[site.index] = site.life
        self._note(f"away: {label}")
        self._answer(message, unreached(message))

    def _answer(self, message: Message, reply: Message) -> None:
        when = self._clock.now + self._delay()
        self._clock.at(when, lambda: self._replies.__setitem__(message.metadata.message_id, reply))

    def _delay(self) -> float:
        late = self._happens(self._plan.late)
        return self._rng.uniform(1, 90) if late else self._rng.uniform(0.01, 0.6)

    def _happens(self, chance: float) -> bool:
        return bool(chance) and self._trouble() and self._rng.random() < chance
