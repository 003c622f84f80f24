"""Key generation of one epoch as pure local steps: contribute, commit, open, derive, publish, compare, sum up.

Positions are places in the committee, 0..n-1. For each set A of t-1 positions the n-t+1 members outside A agree on a seed K_A
that everybody in A lacks. No message is sent or stored here.

Source: replicated secret sharing, Cramer, Damgard, Ishai, TCC 2005. Not Shamir's: released shares of different quorums for one
ciphertext give Shamir keys away (research/he.md, section 2).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, Never

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import CeremonyError
from bahefl_flwr.he.keys import KeyShare, PublicKey, SubsetKey, common_reference, held_subsets, holders, residue_bytes, subsets
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import reduce
from bahefl_flwr.he.sampling import SEED_BYTES, SecretSeed, digest

PublicParts = Mapping[int, NDArray[np.uint32]]
_OPENING_MAGIC: Final = b"BAKO\x01"
_OPENING_HEADER: Final = struct.Struct("<5sBBH")
_HASH_BYTES: Final = 32


class Contributions:
    """A member's secret contributions to the seeds of one epoch, one per subset it is outside of.

    Attributes:
      position: the member's place in the committee.
      epoch_id: 32 bytes that name the run and the key epoch.
      params: what the epoch's keys are made under.
      hashes: one public hash per contribution, ascending subset index.
    """

    def __init__(self, *, position: int, epoch_id: bytes, params: SecurityParams, seeds: Mapping[int, SecretSeed]) -> None:
        self.position = position
        self.epoch_id = epoch_id
        self.params = params
        self._seeds = dict(seeds)
        self.hashes = tuple(_contribution_hash(position, i, self._seeds[i], epoch_id, params) for i in sorted(self._seeds))

    def seed_for(self, subset: int) -> SecretSeed:
        """The contribution to one subset's seed."""
        return self._seeds[subset]

    def __repr__(self) -> str:
        return f"<Contributions epoch={self.epoch_id.hex()[:8]} position={self.position} redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("Contributions do not leave their process: contribute() again from the same entropy")


class Opening:
    """One member's contributions as one holder received and verified them. Holds secrets.

    Attributes:
      sender: position of the contributor.
      hashes: the contributor's public hashes, ascending subset index.
    """

    def __init__(self, *, sender: int, hashes: tuple[bytes, ...], seeds: Mapping[int, SecretSeed]) -> None:
        self.sender = sender
        self.hashes = hashes
        self._seeds = dict(seeds)

    def seed_for(self, subset: int) -> SecretSeed:
        """The contribution to one subset's seed."""
        return self._seeds[subset]

    def __repr__(self) -> str:
        return f"<Opening of position {self.sender} redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("an Opening does not leave its process: keep the sealed message it came in")


def contribute(position: int, params: SecurityParams, epoch_id: bytes, entropy: SecretSeed | None = None) -> Contributions:
    """Step 1: this member's part of every seed it will hold.

    Args:
      entropy: None draws from the operating system. A seed makes the step repeatable after a crash; it must be secret, and
        derived for this epoch only.
    """
    if not 0 <= position < params.committee:
        raise CeremonyError(f"position {position} is not in a committee of {params.committee}")
    source = entropy or SecretSeed.random()
    held = held_subsets(position, params.committee, params.threshold)
    seeds = {i: source.derive("contribution", epoch_id, position, i) for i in held}
    return Contributions(position=position, epoch_id=epoch_id, params=params, seeds=seeds)


def commitment(contributions: Contributions) -> bytes:
    """Step 2: the 32 bytes that go on the ledger before anybody opens."""
    return _commitment(contributions.position, contributions.hashes, contributions.epoch_id, contributions.params)


def opening_for(contributions: Contributions, holder: int) -> bytes:
    """Step 3: what `holder` receives, sealed to it: all hashes, and the contributions to the seeds it holds as well.

    Secret bytes: seal them. A member makes one for itself, too; `derive_share` wants all n.
    """
    params = contributions.params
    common = _common_subsets(contributions.position, holder, params)
    header = _OPENING_HEADER.pack(_OPENING_MAGIC, contributions.position, holder, len(contributions.hashes))
    return header + b"".join(contributions.hashes) + b"".join(contributions.seed_for(i).secret_bytes() for i in common)


def verify_opening(
    data: bytes, *, sender: int, holder: int, committed: bytes, epoch_id: bytes, params: SecurityParams
) -> Opening:
    """Step 4: parse an opening and hold it against its sender's commitment.

    Checks, in this order:
      1. its form and length are exactly those of an opening from `sender` to `holder`;
      2. its hashes are the committed ones;
      3. every contribution has its hash.

    Args:
      committed: the sender's commitment, as the ledger has it.

    Raises:
      CeremonyError: naming the sender and the check.
    """
    mine = held_subsets(sender, params.committee, params.threshold)
    common = _common_subsets(sender, holder, params)
    header = _OPENING_HEADER.pack(_OPENING_MAGIC, sender, holder, len(mine))
    body = len(header) + _HASH_BYTES * len(mine)
    if data[: len(header)] != header or len(data) != body + SEED_BYTES * len(common):  # 1
        raise CeremonyError(
            f"committee position {sender} sent {len(data)} bytes that are no opening to position {holder}: accuse it"
        )
    hashes = tuple(data[k : k + _HASH_BYTES] for k in range(len(header), body, _HASH_BYTES))
    if _commitment(sender, hashes, epoch_id, params) != committed:  # 2
        raise CeremonyError(f"committee position {sender} opened other hashes than it committed to on the ledger: accuse it")
    seeds = {i: SecretSeed(data[body + SEED_BYTES * k : body + SEED_BYTES * (k + 1)]) for k, i in enumerate(common)}
    for i, seed in seeds.items():  # 3
        if _contribution_hash(sender, i, seed, epoch_id, params) != hashes[mine.index(i)]:
            raise CeremonyError(
                f"committee position {sender} sent a contribution to subset {i} that is not the committed one: accuse it"
            )
    return Opening(sender=sender, hashes=hashes, seeds=seeds)


def derive_share(position: int, openings: Mapping[int, Opening], params: SecurityParams, epoch_id: bytes) -> KeyShare:
    """Step 5: this member's key share from the verified openings of all members, its own included.

    Raises:
      CeremonyError: an opening is missing.
    """
    missing = sorted(set(range(params.committee)) - set(openings))
    if missing:
        raise CeremonyError(f"committee positions {missing} have not opened their contributions to position {position}")
    seeds = {}
    for i in held_subsets(position, params.committee, params.threshold):
        givers = holders(i, params.committee, params.threshold)
        seeds[i] = _subset_seed(i, [openings[p].seed_for(i) for p in givers], epoch_id, params)
    return KeyShare(position=position, epoch_id=epoch_id, params=params, seeds=seeds)


def public_parts(share: KeyShare) -> dict[int, NDArray[np.uint32]]:
    """Step 6: b_A of every subset the member holds; residues of shape (primes, N), NTT domain. Public."""
    return {i: key.public for i, key in share.keys.items()}


def contradicting_members(
    share: KeyShare, parts: Mapping[int, PublicParts], openings: Mapping[int, Opening], params: SecurityParams
) -> dict[int, str]:
    """Step 7: hold everybody's public parts against this member's own, before it confirms the key.

    Checks:
      1. every member published exactly the subsets it holds;
      2. where this member holds the subset, the part is the one it derived itself;
      3. elsewhere all holders agree;
      4. a subset with one holder only (t = n) has the part whose hash was committed before anybody else's part was known;
         else the last to publish could choose a collective key that it alone knows the secret of.

    Args:
      parts: position to its parts, all members.
      openings: position to verified opening, all members.

    Returns:
      The positions at fault, each with the reason. Unless empty: do not confirm the key, accuse them.
    """
    n, t = params.committee, params.threshold
    others = [p for p in range(n) if set(parts.get(p, {})) != set(held_subsets(p, n, t))]
    faults = dict.fromkeys(others, "published other subsets than it holds")  # 1
    own = public_parts(share)
    for i in range(len(subsets(n, t))):
        claimed = {p: parts[p][i] for p in holders(i, n, t) if p not in faults}
        wanted = own[i] if i in own else _commonest(list(claimed.values()))  # 2 and 3
        for p, part in claimed.items():
            if wanted is None or not np.array_equal(part, wanted):
                faults[p] = f"subset {i} differs from {'what I derived' if i in own else 'the other holders'}"
            elif n == t and openings[p].hashes != (_sole_hash(p, i, part, share.epoch_id),):  # 4
                faults[p] = f"subset {i} is not the part it committed to"
    return faults


def collective_key(parts: Mapping[int, PublicParts], params: SecurityParams, epoch_id: bytes) -> PublicKey:
    """Step 8: the public key from everybody's parts; needs no share, hence also for sites outside the committee and auditors.

    Raises:
      CeremonyError: a part is missing, or two holders of a subset published different ones.
    """
    total = np.zeros((len(params.data_primes), params.ring_degree), dtype=np.int64)
    for i in range(len(subsets(params.committee, params.threshold))):
        given = {p: parts[p][i] for p in holders(i, params.committee, params.threshold) if i in parts.get(p, {})}
        if not given:
            raise CeremonyError(f"no committee member published its part for subset {i}")
        first = next(iter(given.values()))
        others = [p for p, part in given.items() if not np.array_equal(part, first)]
        if others:
            raise CeremonyError(
                f"committee positions {sorted(given)} published different parts for subset {i}: the key has no meaning"
            )
        total += first
    b = np.stack([reduce(row, q) for row, q in zip(total, params.data_primes, strict=True)]).astype(np.uint32)  # (primes, N)
    return PublicKey(b=b, a=common_reference(epoch_id, params), epoch_id=epoch_id, params_digest=params.digest())


def _common_subsets(sender: int, holder: int, params: SecurityParams) -> list[int]:
    theirs = set(held_subsets(holder, params.committee, params.threshold))
    return [i for i in held_subsets(sender, params.committee, params.threshold) if i in theirs]


def _subset_seed(index: int, contributions: list[SecretSeed], epoch_id: bytes, params: SecurityParams) -> SecretSeed:
    secrets = b"".join(seed.secret_bytes() for seed in contributions)
    return SecretSeed(digest("subset-seed", epoch_id, params.digest(), index, secrets))


def _contribution_hash(position: int, index: int, seed: SecretSeed, epoch_id: bytes, params: SecurityParams) -> bytes:
    if params.threshold < params.committee:
        return digest("contribution-hash", epoch_id, position, index, seed.secret_bytes())
    # Nobody else holds this subset and could recompute its public part: so the commitment is to the part itself.
    part = SubsetKey(_subset_seed(index, [seed], epoch_id, params), epoch_id, params).public
    return _sole_hash(position, index, part, epoch_id)


def _sole_hash(position: int, index: int, part: NDArray[np.uint32], epoch_id: bytes) -> bytes:
    return digest("sole-part-hash", epoch_id, position, index, residue_bytes(part))


def _commitment(position: int, hashes: tuple[bytes, ...], epoch_id: bytes, params: SecurityParams) -> bytes:
    return digest("seed-commitment", epoch_id, params.digest(), position, *hashes)


def _commonest(parts: list[NDArray[np.uint32]]) -> NDArray[np.uint32] | None:
    """The part that more than half of the holders gave, or None."""
    for part in parts:
        if 2 * sum(np.array_equal(part, other) for other in parts) > len(parts):
            return part
    return None
