"""What the ledger knows, as frozen records: members, key epochs, rounds and their parts.

Only data and the arithmetic of site masks lives here; nothing that talks to a chain, a store or a network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class RoundPhase(IntEnum):
    """Phase of a round; the values are those of the contract's enum."""

    NONE = 0
    COMMIT = 1
    AGGREGATE = 2
    VERIFY = 3
    VERIFIED = 4
    FINALIZED = 5
    ABORTED = 6


class EpochPhase(IntEnum):
    """Phase of a key epoch's ceremony; the values are those of the contract's enum."""

    NONE = 0
    COMMIT = 1
    REVEAL = 2
    PUBLISH = 3
    CONFIRM = 4
    DISPUTE = 5
    ACTIVE = 6
    FAILED = 7


class MemberStatus(IntEnum):
    """Standing of a site on the ledger; the values are those of the contract's enum."""

    NONE = 0
    WHITELISTED = 1
    ACTIVE = 2
    SUSPENDED = 3


class ObjectKind(StrEnum):
    """What a stored object is. Part of its manifest, hence of its digest (protocol rule 3)."""

    MODEL = "model"
    SEED_COMMITMENT = "seed-commitment"
    SEEDS = "seeds"
    PUBLIC_KEY_PARTS = "public-key-parts"
    UPDATE = "update"
    AGGREGATE = "aggregate"
    SHARE = "share"
    SKETCH = "sketch"
    EVIDENCE = "evidence"


class ExclusionReason(IntEnum):
    """Why a committed update is not part of the aggregate; one byte per excluded site on the ledger.

    The first three, and GARBAGE, are faults that everybody can prove, and cost score on the ledger. The others are what screening
    found (docs/screening.md): a reason to look at the site, never a punishment.
    """

    MISSING = 1
    CORRUPT = 2
    MALFORMED = 3
    OUT_OF_RANGE = 4
    """Its sketch does not fit the range of any honest update."""
    ZERO = 5
    DUPLICATE = 6
    REPLAY = 7
    UNDOING = 8
    OVERSIZED = 9
    GARBAGE = 10
    """An audit opened a value of its update that lies outside the agreed range."""


class BallotStage(IntEnum):
    """Where the sites' vote on an aggregate with two halves is; the values are those of the contract."""

    NONE = 0
    CAST = 1
    REVEAL = 2
    COUNTED = 3


class RoundOutcome(IntEnum):
    """What the sites made of an opened aggregate; the values are those of the contract."""

    WHOLE = 0
    """All included updates; the only one for an aggregate without halves, but for SPOILED."""
    FIRST = 1
    """Only the half that is not in the round's `split`."""
    SECOND = 2
    """Only the half in `split`."""
    NONE = 3
    """Neither half: the model stays as it was."""
    SPOILED = 4
    """A sum lies out of the agreed range; never final, the aggregate is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A registered site.

    Attributes:
      index: position in the contract's roster, 0..254; bit `index` of every mask.
      address: checksummed Ethereum address.
      sealing_key: raw X25519 public key, 32 bytes.
      onion_anchor: current tip of the member's hash onion, 32 bytes.
      max_weight: cap on the aggregation weight, 1..2**32-1 (for instance training examples).
      score: history-weighted reputation, 0..65535.
    """

    index: int
    address: str
    status: MemberStatus
    sealing_key: bytes
    onion_anchor: bytes
    max_weight: int
    score: int
    included: int
    missed: int
    rejected: int
    coordinated: int
    coordinator_faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What `startTask` fixed for a run.

    Attributes:
      number: 1 for the contract's first task; 0 when none was started.
      run_digest: digest of the run's protocol settings, 32 bytes; the `run` of every manifest.
      initial_model: SHA-256 of the canonical bytes of the model every site starts from.
      security_params: digest of `he.params.SecurityParams`.
      rounds: finalised rounds after which the task ends by itself.
      screened: whether updates are judged by their sketches.
      open: whether rounds are still being run.
      end_reason: why the task ended before all rounds were finalised; empty otherwise.
      excluded: members whose fault was proved, or that a majority of a committee accused: in no later committee of this task.
      absent: members that were silent in a key ceremony: not in the next attempts, until an epoch becomes ACTIVE.
    """

    number: int
    run_digest: bytes
    initial_model: bytes
    security_params: bytes
    rounds: int
    screened: bool
    open: bool
    end_reason: str
    excluded: int
    absent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """A key epoch (0 before the first). Masks have one bit per member index; times are chain seconds.

    Attributes:
      pool: members that were active and not excluded when the epoch opened; new keys are made once these are others.
      accused: members that somebody accused in this epoch.
      renewal: whether new keys are to be made before the next round, whatever their age.
      finalized_before: rounds of the task that were finalised when the epoch opened; its age is counted from there.
    """

    epoch: int
    phase: EpochPhase
    threshold: int
    committee: int
    committed: int
    revealed: int
    published: int
    confirmed: int
    key_digest: bytes
    deadline: int
    pool: int
    accused: int
    renewal: bool
    finalized_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyRecord:
    """What one committee member put on the ledger in a key ceremony; 32 zero bytes where not yet."""

    member: int
    seed_commitment: bytes
    sealed_seeds: bytes
    key_parts: bytes
    key_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AccusationRecord:
    """One committee member named another.

    Attributes:
      round: the round whose shares it is about; 0 in a key ceremony.
      evidence: digest of the stored object that proves it by giving up the accuser's own key of this epoch; zero if none.
    """

    accuser: int
    culprit: int
    round: int
    evidence: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRecord:
    """One committed update. `weight` <= the member's max_weight."""

    member: int
    digest: bytes
    size_bytes: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRecord:
    """One released decryption share, or part of the sketches' openings: its store digest, and the quorum (mask) it is for."""

    member: int
    quorum: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotRecord:
    """One site's ballot on the two halves of an aggregate.

    Attributes:
      commitment: 32 bytes, `ledger.ballots.ballot_commitment`.
      choice: 0 both are good, 1 rather the first, 2 rather the second; None until the site has shown it.
    """

    member: int
    commitment: bytes
    choice: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """A round as the contract holds it. Masks have one bit per member index; times are chain seconds.

    Attributes:
      attempt: aggregation attempt, from 0; each coordinator replacement, and each spoiled aggregate, adds one.
      weight_total: sum of max_weight over the sites selected when the round opened; the unit of all weights.
      parent: aggregate digest of the last finalised round (zero before the first).
      base: digest of the model that all updates of this round start from: the last finalised round's `opened`, or the
        task's initial model.
      weights: one byte (1..8) per included member, ascending index: the coordinator's integer weights.
      reasons: one `ExclusionReason` byte per committed member left out, ascending index.
      split: mask of the second half of an aggregate with two; 0 for one without halves. `included` is both.
      revealed: members whose onion layer of this round is public, by itself or with a vote, in whichever attempt.
      screen_seed: what every update of this round is sketched with, 32 bytes; zero until it is drawn.
      ballot_stage: of the vote on the two halves. cast, balloted: members that cast a ballot, and that showed it.
      open_quorum: mask of a quorum whose shares are all released, 0 while there is none.
      confirmed: members that opened the shares of `open_quorum` and named the model they got.
      opened: digest of the model after this round, once a majority of the committed sites named it; zero before.
      outcome: which updates that model takes up; WHOLE before.
      spoiled: digest of the places in which the last opened aggregate was out of its range; zero if none was.
      disputed: key holders whose shares were found wrong in this round; no quorum may contain them any more.
      abort_reason: text given on chain when the phase is ABORTED.
    """

    number: int
    phase: RoundPhase
    attempt: int
    coordinator: int
    epoch: int
    deadline: int
    opened_at: int
    weight_total: int
    selected: int
    committed: int
    declined: int
    included: int
    voted_ok: int
    voted_bad: int
    revealed: int
    failed: int
    open_quorum: int
    confirmed: int
    disputed: int
    split: int
    cast: int
    balloted: int
    ballot_stage: BallotStage
    outcome: RoundOutcome
    screen_seed: bytes
    spoiled: bytes
    parent: bytes
    base: bytes
    opened: bytes
    aggregate: bytes
    aggregate_size_bytes: int
    weights: bytes
    reasons: bytes
    abort_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """One consistent reading of the ledger.

    Attributes:
      chain_time: seconds a transaction sent now would see as its block time.
      task: the current task.
      epoch: the newest key epoch.
      round: the newest round (number 0 before the first).
      last_finalized: number of the newest finalised round of this task, 0 while there is none.
      finalized_count: finalised rounds of this task.
      active: mask of active members.
    """

    chain_time: int
    block_number: int
    task: Task
    epoch: EpochRecord
    round: RoundRecord
    last_finalized: int
    finalized_count: int
    active: int


def mask_of(members: Iterable[int]) -> int:
    """Set bit `i` for every member index `i`."""
    mask = 0
    for index in members:
        mask |= 1 << index
    return mask


def members_in(mask: int) -> tuple[int, ...]:
    """Member indices of a mask, ascending."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def members_of(r: RoundRecord, outcome: RoundOutcome) -> int:
    """Mask of the sites whose mean update an outcome of the round takes up; 0 for none."""
    match outcome:
        case RoundOutcome.WHOLE:
            return r.included
        case RoundOutcome.FIRST:
            return r.included & ~r.split
        case RoundOutcome.SECOND:
            return r.included & r.split
        case _:
            return 0
