"""What can be asked of a site, and what the driver itself can do: the vocabulary of `round.next_step`. Data only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

EVALUATE = "bahefl-evaluate"
"""Entry of a request's config record: whether to evaluate; absent means yes."""
EVALUATION = "bahefl-evaluate-"
"""In the config record of a request to train: what the NumPyClient's evaluate is to be told begins with it."""


class Action(StrEnum):
    """What a site can be asked to do; the values are Flower message types (docs/protocol.md)."""

    HELLO = "query.hello"
    COMMIT_SEEDS = "query.commit_seeds"
    REVEAL_SEEDS = "query.reveal_seeds"
    PUBLISH_KEY_PARTS = "query.publish_key_parts"
    UPLOAD_KEY_PARTS = "query.upload_key_parts"
    CONFIRM_KEY = "query.confirm_key"
    JUDGE = "query.judge"
    TRAIN = "train"
    UPLOAD = "query.upload"
    SCREEN = "query.screen"
    AGGREGATE = "query.aggregate"
    OPEN = "query.open"
    CAST_BALLOT = "query.cast_ballot"
    REVEAL_BALLOT = "query.reveal_ballot"
    CONFIRM = "query.confirm"
    EVALUATE = "evaluate"


# Each continues "site 3 did not".
_DEEDS = {
    Action.HELLO: "answer",
    Action.COMMIT_SEEDS: "commit to its seeds",
    Action.REVEAL_SEEDS: "reveal its seeds",
    Action.PUBLISH_KEY_PARTS: "publish its key parts",
    Action.UPLOAD_KEY_PARTS: "store its key parts",
    Action.CONFIRM_KEY: "confirm the collective key",
    Action.JUDGE: "judge the dispute",
    Action.TRAIN: "train and commit its update",
    Action.UPLOAD: "store its update",
    Action.SCREEN: "release its part of the sketches",
    Action.AGGREGATE: "add up the updates",
    Action.OPEN: "verify the sum and release its share",
    Action.CAST_BALLOT: "cast its ballot",
    Action.REVEAL_BALLOT: "show its ballot",
    Action.CONFIRM: "open the sum and confirm the model",
    Action.EVALUATE: "evaluate the model",
}
_OF_EPOCHS = frozenset(
    (
        Action.COMMIT_SEEDS, Action.REVEAL_SEEDS, Action.PUBLISH_KEY_PARTS, Action.UPLOAD_KEY_PARTS, Action.CONFIRM_KEY,
        Action.JUDGE,
    )
)  # fmt: skip


def deed(action: Action) -> str:
    """What a site is asked to do, in words that continue "site 3 did not"."""
    return _DEEDS[action]


def occasion(action: Action, number: int) -> str:
    """`round 3` or `key epoch 3`, whichever the action belongs to."""
    return f"key epoch {number}" if action in _OF_EPOCHS else f"round {number}"


class Step(StrEnum):
    """What the driver itself can send to the ledger. Anybody may send these; the contract checks the time."""

    EXPIRE_EPOCH = "expire_epoch"
    CLOSE_COMMITS = "close_commits"
    DRAW_SEED = "draw_seed"
    REPLACE_COORDINATOR = "replace_coordinator"
    CLOSE_BALLOTS = "close_ballots"
    FINALIZE = "finalize"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing asked of one member; the fields mean what they mean in `Ask`."""

    action: Action
    number: int
    attempt: int
    member: int
    quorum: int = 0
    repairs: Action | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the driver remembers of its own questions. Losing it costs repeats of idempotent requests, nothing else.

    Attributes:
      times: how often each request was put.
      answered: requests that were carried out. failed: requests that were answered with an error.
    """

    times: Mapping[Request, int] = field(default_factory=dict)
    answered: Collection[Request] = frozenset()
    failed: Collection[Request] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send `action` to `members` and wait for their replies, at most until `deadline` or until it `is_over`.

    Attributes:
      number: round, or key epoch in a ceremony. attempt: the round's aggregation attempt.
      deadline: chain seconds; this question's share of the ledger's window (see `_share_of_window`).
      quorum: mask of the members asked to release shares, with OPEN and SCREEN; that have released them, with the actions that
        use those shares.
      repairs: with UPLOAD, the action that failed and is to be tried again once objects are put again.
      owners_asked: that has been done: who still cannot read an object does without it.
    """

    action: Action
    number: int
    attempt: int
    members: tuple[int, ...]
    deadline: int
    quorum: int = 0
    repairs: Action | None = None
    owners_asked: bool = False

    def request(self, member: int) -> Request:
        """What this asks of one member."""
        return Request(
            action=self.action, number=self.number, attempt=self.attempt, member=member, quorum=self.quorum, repairs=self.repairs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Send a transaction that moves the ledger on because a deadline passed or everything is there."""

    step: Step
    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to ask: wait for `members`, at most until `deadline` (chain seconds)."""

    deadline: int
    members: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The task is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """The ledger stays in a state that the contract leaves by itself: no honest ledger of ours, so there is nothing to do."""

    why: str


Command = Ask | Advance | Wait | Done | Stuck
