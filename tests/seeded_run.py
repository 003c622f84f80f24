"""Whole runs that come out the same, bit for bit: keys and randomness of sites follow from who asks for them, and for what.

The lowest bits of an opened sum hold noise (docs/security.md): equal updates under other keys open to a model a little different.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Message

from bahefl_flwr import federation, identity
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.steps import Action
from federation_run import Run
from in_process_grid import Deliver, Tamper, plain_delivery

Tampering = Callable[[Run], Tamper]


class Seeds:
    """What is drawn in the present thread follows from the site and the message it answers, and from nothing else."""

    def __init__(self) -> None:
        self._who = threading.local()

    def answering(self, site: int, message: Message) -> None:
        """From now on, this thread answers that."""
        config = message.content["config"]
        self._who.name = f"site {site} {message.metadata.message_type} {config['bahefl-number']}"
        self._who.site = f"site {site}"

    def random(self) -> SecretSeed:
        """In place of `SecretSeed.random`; a repeated message draws the same."""
        return SecretSeed(hashlib.sha256(getattr(self._who, "name", "driver").encode()).digest())

    def identity(self) -> dict[str, Any]:
        """In place of `identity._fresh`."""
        who = getattr(self._who, "site", "driver")
        ethereum, sealing, onion = (hashlib.sha256(f"{who} {what}".encode()).digest() for what in ("account", "sealing", "onion"))
        return {"ethereum": ethereum, "sealing": sealing, "onion": onion, "layers": identity.DEFAULT_LAYERS}


class InOrder:
    """Greetings are answered in the order of the sites, so that they always get the same numbers on the ledger."""

    def __init__(self, sites: int) -> None:
        self._sites, self._turn, self._done = sites, threading.Condition(), 0

    def wait_for(self, site: int) -> None:
        """Until it is this site's turn."""
        with self._turn:
            assert self._turn.wait_for(lambda: self._done % self._sites == site, 120)

    def done(self) -> None:
        """It is the next one's turn."""
        with self._turn:
            self._done += 1
            self._turn.notify_all()


def seeded(monkeypatch: pytest.MonkeyPatch, tamper: Tampering = lambda _: plain_delivery) -> Tampering:
    """A tampering for `federated_run` whose run comes out the same each time."""
    seeds = Seeds()
    monkeypatch.setattr(SecretSeed, "random", seeds.random)
    monkeypatch.setattr(identity, "_fresh", seeds.identity)
    monkeypatch.setattr(federation, "_run_digest", lambda *_: bytes(31) + b"\1")

    def make(run: Run) -> Tamper:
        inner, order = tamper(run), InOrder(run.settings.federation.sites)

        def deliver_seeded(site: int, message: Message, deliver: Deliver) -> Message | None:
            def answer(again: Message) -> Message:
                seeds.answering(site, again)
                return deliver(again)

            if message.metadata.message_type != Action.HELLO:
                return inner(site, message, answer)
            order.wait_for(site)
            try:
                return inner(site, message, answer)
            finally:
                order.done()

        return deliver_seeded

    return make
