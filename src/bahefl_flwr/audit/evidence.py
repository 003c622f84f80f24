"""Everything an audit judges, read once from the ledger into frozen records. No judgement here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bahefl_flwr.ledger.history import Event, History
from bahefl_flwr.ledger.readings import (
    Reading,
    accusation_of,
    ballot_of,
    ceremony_of,
    epoch_of,
    member_of,
    round_of,
    share_of,
    task_of,
    update_of,
)
from bahefl_flwr.records import (
    AccusationRecord,
    BallotRecord,
    CeremonyRecord,
    EpochRecord,
    Member,
    RoundRecord,
    ShareRecord,
    Task,
    UpdateRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of the contract that an audit needs, from `event` on (an index into Evidence.events)."""

    event: int
    min_commits: int
    quorum_bps: int
    max_attempts: int
    cooldown: int
    committee_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEvidence:
    """A round: the contract's record, what it elects with, and the objects it names.

    Attributes:
      task: number of the task it belongs to. parent_round: the finalised round it builds on, 0 = the initial model.
      shares: those of the last attempt, in order of release. sketches: the parts of the sketches' openings, likewise, for each
        question: the first, and one more after every spoiled aggregate. ballots: by member index.
    """

    record: RoundRecord
    task: int
    parent_round: int
    entropy: bytes
    beacon: bytes
    ranking: int
    updates: tuple[UpdateRecord, ...]
    shares: tuple[ShareRecord, ...]
    sketches: tuple[tuple[ShareRecord, ...], ...]
    ballots: tuple[BallotRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEvidence:
    """A key epoch, and what its committee put on the ledger. `task`: number of the task it was made in."""

    record: EpochRecord
    task: int
    ceremony: tuple[CeremonyRecord, ...]
    accusations: tuple[AccusationRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One ledger, read to its newest block.

    Attributes:
      head: number and hash of the newest block.
      events: all, in order. rules: the settings, in the order in which they came into force.
      members: the roster at the end, by index. tasks, epochs, rounds: by number, from 1.
    """

    chain_id: int
    contract: str
    head: tuple[int, str]
    events: tuple[Event, ...]
    rules: tuple[Rules, ...]
    members: tuple[Member, ...]
    tasks: tuple[Task, ...]
    epochs: tuple[EpochEvidence, ...]
    rounds: tuple[RoundEvidence, ...]

    def of_round(self, number: int, *names: str) -> Iterator[Event]:
        """Events of one round, of these names (all if none)."""
        return (e for e in self.events if e.values.get("round") == number and (not names or e.name in names))

    def rules_at(self, event: Event) -> Rules:
        """The settings in force when an event happened."""
        at = (event.block, event.position)
        return next(r for r in reversed(self.rules) if r.event == 0 or _place(self.events[r.event]) <= at)

    def index_of(self, address: str) -> int | None:
        """Member index of an address, None if it never registered."""
        return next((m.index for m in self.members if m.address == address), None)

    def address_of(self, index: int) -> str:
        """Address of a member index; "" if there is none."""
        return self.members[index].address if index < len(self.members) else ""

    def task_of(self, number: int) -> Task:
        """A task by number."""
        return self.tasks[number - 1]

    def epoch_of(self, number: int) -> EpochEvidence:
        """A key epoch by number."""
        return self.epochs[number - 1]


def read_evidence(history: History, chain_id: int) -> Evidence:
    """Read a whole ledger.

    Raises:
      LedgerError: it does not answer, or not sensibly.
    """
    events = history.events()
    rounds, epochs = _tasks_of(events, "RoundOpened", "round"), _tasks_of(events, "EpochOpened", "epoch")
    tasks = [e.values["task"] for e in events if e.name == "TaskStarted"]
    members = tuple(map(member_of, history.readings("getMembers")))
    return Evidence(
        chain_id=chain_id,
        contract=history.address,
        head=history.head(),
        events=events,
        rules=tuple(_rules(history, events)),
        members=members,
        tasks=tuple(task_of(history.reading("getTask", number)) for number in tasks),
        epochs=tuple(_epoch(history, number, task) for number, task in epochs),
        rounds=tuple(_round(history, number, task, _sketches(events, number, members)) for number, task in rounds),
    )


def _tasks_of(events: Iterable[Event], name: str, key: str) -> Iterator[tuple[int, int]]:
    """Numbers of the rounds (or epochs) that were opened, each with its task."""
    task = 0
    for event in events:
        if event.name == "TaskStarted":
            task = event.values["task"]
        elif event.name == name:
            yield event.values[key], task


def _rules(history: History, events: Iterable[Event]) -> Iterator[Rules]:
    for at, event in enumerate(events):
        if event.name == "ConfigChanged":
            config = history.config(event.block)
            yield Rules(
                event=at, min_commits=config["minCommits"], quorum_bps=config["quorumBps"], max_attempts=config["maxAttempts"],
                cooldown=config["cooldownRounds"], committee_max=config["committeeMax"],
            )  # fmt: skip


def _epoch(history: History, number: int, task: int) -> EpochEvidence:
    return EpochEvidence(
        record=epoch_of(history.reading("getEpoch", number)),
        task=task,
        ceremony=tuple(map(ceremony_of, history.readings("getCeremony", number))),
        accusations=tuple(map(accusation_of, history.readings("getAccusations", number))),
    )


def _sketches(events: Iterable[Event], number: int, members: Iterable[Member]) -> tuple[tuple[ShareRecord, ...], ...]:
    """By question. The contract's own reading forgets those that were answered before a spoiled aggregate."""
    index = {m.address: m.index for m in members}
    questions: list[list[ShareRecord]] = [[]]
    for event in events:
        if event.values.get("round") != number:
            continue
        if event.name == "RoundSpoiled":
            questions.append([])
        elif event.name == "SketchReleased" and (member := index.get(event.values["member"])) is not None:  # else check 3 tells
            questions[-1].append(ShareRecord(member=member, quorum=event.values["quorum"], digest=event.values["digest"]))
    return tuple(map(tuple, questions))


def _round(history: History, number: int, task: int, sketches: tuple[tuple[ShareRecord, ...], ...]) -> RoundEvidence:
    reading: Reading = history.reading("getRound", number)
    return RoundEvidence(
        record=round_of(reading),
        task=task,
        parent_round=reading["parentRound"],
        entropy=reading["entropy"],
        beacon=reading["beacon"],
        ranking=reading["ranking"],
        updates=tuple(map(update_of, history.readings("getUpdates", number))),
        shares=tuple(map(share_of, history.readings("getShares", number))),
        sketches=sketches,
        ballots=tuple(map(ballot_of, history.readings("getBallots", number))),
    )


def _place(event: Event) -> tuple[int, int]:
    return event.block, event.position
