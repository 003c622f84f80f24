"""How a sketch share proves itself: tags as in `share_proof`, on group sums instead of polynomials. No combination here.

A share is V = sum of x_A over the subsets A assigned to its sender, where x_A[site, group] is a group sum of c1[site] * s_A, plus
noise of A. Everybody outside A holds K_A and can compute x_A exactly, but sees V only. So the sender adds, per A, numbers that
are linear in x_A:

    tag_A[r, l] = sum over sites of v[r, site] * sum over groups of u[r, group] * x_A[site, group]    modulo prime l,

with v and u uniform in 0..q_0-1, q_0 the least prime, r < REPEATS, from a hash of parameters, plan, position, quorum, all c1 and
V (Fiat-Shamir).

*What is proved.* Let V differ from the sum of the true x_A modulo prime l, by D with some D[site, group] != 0. Take one r. The
sum over groups of u * D[site] is linear in u with a coefficient that is not zero: whatever the other u are, at most one value of
q_0 makes it vanish. If it does not, the sum over sites of v times such sums is linear in v with a coefficient that is not zero,
and vanishes with a chance of 1/q_0 at most again. So D goes unnoticed with a chance of 2/q_0 < 2^-28.9 for one r and 2^-115 for
all four, and a sender that looks for a V to its liking hashes as often, for every V has its own challenge. If D is noticed, then
either the tags do not add up to the functional of V, which everybody sees, or some tag_A is not that of the true x_A, which every
holder of K_A sees. Each prime has its own tags, so that a value changed modulo one prime only is found like any other.

*Where that ends, who is named, what tags tell*: as `share_proof` says, for the same reasons. In short: with t = (n+1)/2 some
honest member holds each key that a liar could lie about; a wrong tag_A is word against word; a coalition of t-1 lacks one key and
computes all tags of a share from the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import ShareError, WrongEpoch
from bahefl_flwr.he.inner_products import inner, weighted_sum
from bahefl_flwr.he.keys import KeyShare, SubsetKey, assign, residue_bytes
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import Int64Array, reduce, ring
from bahefl_flwr.he.sampling import Generator, SecretSeed, digest, flooding_of, uniform
from bahefl_flwr.he.share_format import REPEATS, tag_shape
from bahefl_flwr.he.sketch_format import MOST_MEMBERS, SketchShare
from bahefl_flwr.he.sketch_plan import SketchPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchChallenge:
    """The random linear functionals of one sketch share.

    Attributes:
      groups: u, 0..q_0-1, shape (REPEATS, groups).
      sites: v, 0..q_0-1, shape (REPEATS, sites).
      plan: gives ring and groups.
    """

    groups: Int64Array
    sites: Int64Array
    plan: SketchPlan

    def of_values(self, values: NDArray[np.uint32]) -> Int64Array:
        """The functionals of group sums, shape (sites, primes, groups); result (REPEATS, primes)."""
        primes = self.plan.params.data_primes
        sums = [inner(values[:, l], self.groups, (q,))[0] for l, q in enumerate(primes)]  # (sites, REPEATS) each
        return np.stack([self._over_sites(sum_, q) for sum_, q in zip(sums, primes, strict=True)], axis=-1)

    def of_noise(self, noise: Int64Array) -> Int64Array:
        """The functionals of noise, shape (keys, sites, groups); result (keys, REPEATS, primes)."""
        primes = self.plan.params.data_primes
        keys, sites, groups = noise.shape
        sums = inner(noise.reshape(-1, groups), self.groups, primes)  # (keys * sites, REPEATS) each
        found = [self._over_sites(s.reshape(keys, sites, REPEATS), q) for s, q in zip(sums, primes, strict=True)]
        return np.stack(found, axis=-1)  # (keys, REPEATS, primes)

    def of_products(self, c1: NDArray[np.uint32], secrets: Int64Array) -> Int64Array:
        """The functionals of group sums of c1 * s_A, for secrets of shape (keys, primes, N); result (keys, REPEATS, primes)."""
        params = self.plan.params
        slots = self._slots()  # (REPEATS, rows, primes, N)
        found = []
        for l, q in enumerate(params.data_primes):
            weighted = weighted_sum(c1[:, l], self.sites, q).reshape(REPEATS, -1, params.ring_degree)  # (REPEATS, rows, N)
            functional = reduce(reduce(weighted * slots[:, :, l], q).sum(axis=1), q)  # (REPEATS, N)
            sums = inner(secrets[:, l], functional, (q,))[0]  # (keys, REPEATS)
            found.append(reduce(sums * pow(params.ring_degree, -1, q), q))
        return np.stack(found, axis=-1)

    def _slots(self) -> Int64Array:
        """Polynomials T, in NTT domain, for which the slots of T * x sum up to N * sum of u * group sums of x.

        That sum over slots is N times the constant coefficient of T * x, which is T[0] x[0] - sum of T[N-i] x[i].
        """
        plan = self.plan
        weights = np.zeros((REPEATS, plan.width), dtype=np.int64)
        weights[:, plan.order] = self.groups[:, :, None] * plan.order_signs  # (REPEATS, groups, size)
        weights = weights.reshape(REPEATS * plan.rows, plan.params.ring_degree)  # (REPEATS * rows, N)
        turned = np.concatenate([weights[:, :1], -weights[:, :0:-1]], axis=1)
        slots = ring(plan.params).forward_all(turned)  # (REPEATS * rows, primes, N)
        return slots.reshape(REPEATS, plan.rows, *slots.shape[1:])

    def _over_sites(self, sums: Int64Array, q: int) -> Int64Array:
        """Sum over sites of v times (..., sites, REPEATS) residues."""
        return reduce(reduce(sums * self.sites.T, q).sum(axis=-2), q)


def sketch_challenge(
    names: Sequence[bytes], values: NDArray[np.uint32], position: int, quorum: Sequence[int], plan: SketchPlan
) -> SketchChallenge:
    """The functionals that belong to these values, and that nobody knew before it had settled on them.

    Args:
      names: `site_names` of c1.
    """
    members = bytes(sorted(set(quorum)))
    seed = digest(
        "sketch-challenge", plan.params.digest(), plan.digest, position, members, b"".join(names), residue_bytes(values)
    )
    # A public value, in the type that starts a generator.
    generator = Generator(SecretSeed(seed))
    least = min(plan.params.data_primes)
    groups = uniform(generator, least, REPEATS * plan.groups).reshape(REPEATS, -1)
    sites = uniform(generator, least, REPEATS * len(names)).reshape(REPEATS, -1)
    return SketchChallenge(groups=groups, sites=sites, plan=plan)


def site_names(c1: NDArray[np.uint32], plan: SketchPlan) -> list[bytes]:
    """A digest per site of its c1 and of the plan: what its flooding noise, and the challenge, depend on."""
    return [digest("sketch", plan.digest, residue_bytes(site)) for site in c1]


def sketch_noise(names: Sequence[bytes], keys: Sequence[SubsetKey], plan: SketchPlan) -> Int64Array:
    """What each key adds to the group sums of the sites of these names, shape (keys, sites, groups).

    Seeded by key and name alone: the same question about the same c1 has the same noise for ever, another question other noise.
    """
    words = np.empty((3, len(keys), len(names), plan.groups), dtype=np.uint64)
    for k, key in enumerate(keys):
        for s, name in enumerate(names):
            generator = Generator(key.seed.derive("sketch-flooding", name))
            words[:, k, s] = generator.words(3 * plan.groups).reshape(3, -1)
    return flooding_of(words, plan.sigma_log2)


def sketch_tags(
    asked: SketchChallenge, c1: NDArray[np.uint32], keys: Sequence[SubsetKey], noise: Int64Array
) -> NDArray[np.uint32]:
    """The tags of these keys' contributions, shape (keys, REPEATS, primes)."""
    total = asked.of_noise(noise) + asked.of_products(c1, np.stack([key.secret for key in keys]))
    found: NDArray[np.uint32] = (total % np.array(asked.plan.params.data_primes)).astype(np.uint32)
    return found


def verify_sketch_share(
    c1: NDArray[np.uint32],
    share: SketchShare,
    position: int,
    quorum: Sequence[int],
    plan: SketchPlan,
    own: KeyShare | None = None,
) -> None:
    """Whether a sketch share is what its sender had to answer, as far as the caller's keys can tell.

    Checks:
      1. values and tags have their form and range;
      2. the tags add up to the functional of the values: needs no key;
      3. for every subset key that was assigned to the sender and is held here, the tag is the one computed here.

    Args:
      c1: second polynomials of the sites' sketches, (sites, primes, width), NTT domain: the same sites in the same order.
      own: the caller's key share of the updates' epoch; None outside the committee.

    Raises:
      ShareError: naming the position and, for check 3, the subset.
      WrongEpoch: `own` was made under other security parameters: the caller's mistake, nobody else's.
    """
    params = plan.params
    if own is not None and own.params != params:
        raise WrongEpoch("a share cannot be checked with keys of other security parameters: load those of the updates' epoch")
    check_c1(c1, plan)
    check_form(
        share.values, (len(c1), len(params.data_primes), plan.groups), f"the sketch share of position {position}", params
    )  # 1
    _check_tags(share, position, quorum, params)
    names = site_names(c1, plan)
    asked = sketch_challenge(names, share.values, position, quorum, plan)
    totals = share.tags.sum(axis=0, dtype=np.int64) % np.array(params.data_primes)
    if not np.array_equal(totals, asked.of_values(share.values)):  # 2
        raise ShareError(
            f"the sketch share of position {position} contradicts its own tags, or is for other updates, another plan or another "
            f"quorum than {sorted(quorum)}: accuse it"
        )
    wrong = _wrong_tags(asked, names, c1, share, position, quorum, own) if own is not None else []  # 3
    if wrong:
        raise ShareError(
            f"the sketch share of position {position} is wrong: its contributions of subset keys {wrong}, which are held here "
            "too, are not the ones computed here; accuse it"
        )


def _wrong_tags(
    asked: SketchChallenge,
    names: Sequence[bytes],
    c1: NDArray[np.uint32],
    share: SketchShare,
    position: int,
    quorum: Sequence[int],
    own: KeyShare,
) -> list[int]:
    """Subset keys that were assigned to the sender and are held here, and whose tag is another one here."""
    params = asked.plan.params
    assigned = assign(quorum, params.committee, params.threshold)[position]
    keys = {i: own.keys[i] for i in assigned if i in own.keys}
    if not keys:
        return []
    held = list(keys.values())
    wanted = sketch_tags(asked, c1, held, sketch_noise(names, held, asked.plan))
    return [i for i, tag in zip(keys, wanted, strict=True) if not np.array_equal(tag, share.tags[assigned.index(i)])]


def check_c1(c1: NDArray[np.uint32], plan: SketchPlan) -> None:
    """Form and range of the second polynomials of 1 to 256 sketches.

    Raises:
      ShareError: not of that form; a caller's mistake.
    """
    if not 1 <= len(c1) <= MOST_MEMBERS:
        raise ShareError(f"{len(c1)} sketches are to be opened, possible are 1 to {MOST_MEMBERS}")
    check_form(c1, (len(c1), len(plan.params.data_primes), plan.width), "c1 of the sketches", plan.params)


def check_form(values: NDArray[np.uint32], expected: tuple[int, ...], what: str, params: SecurityParams) -> None:
    """Form and range of residues (sites, primes, ...).

    Raises:
      ShareError: naming `what`.
    """
    if values.dtype != np.uint32 or values.shape != expected:
        raise ShareError(f"{what} is {values.dtype}{values.shape}, expected uint32{expected}: fetch it again")
    for l, q in enumerate(params.data_primes):
        if int(values[:, l].max()) >= q:
            raise ShareError(f"{what} has a number >= its prime {q}: it is damaged or forged")


def _check_tags(share: SketchShare, position: int, quorum: Sequence[int], params: SecurityParams) -> None:
    expected = tag_shape(position, quorum, params)
    if share.tags.dtype != np.uint32 or share.tags.shape != expected:
        raise ShareError(
            f"the tags of position {position} are {share.tags.dtype}{share.tags.shape}, expected uint32{expected}: accuse it"
        )
    if (share.tags >= np.array(params.data_primes)).any():
        raise ShareError(f"a tag of position {position} is not below its prime: accuse it")
