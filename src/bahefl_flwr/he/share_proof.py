"""How a decryption share proves itself: the tags in it, and the check that finds a wrong one. No combination here.

A share is R = sum of x_A over the subsets A assigned to its sender, x_A = c1 * s_A + noise_A. Everybody outside A holds K_A and
can compute x_A exactly, but sees R only. So the sender adds, per A, some numbers that are linear in x_A:

    tag_A[r, l] = sum over blocks b of weight[r, b] * sum over the NTT slots of u[r] * x_A[b]    modulo prime l,

with polynomials u[r], r < REPEATS, and weights uniform in 0..q_0-1 from a hash of c1, position, quorum and R (Fiat-Shamir).

*What is proved.* Let R differ from the sum of the true x_A modulo some prime. For each r the functional of the difference is
zero with a chance of at most 2/q_0 (a bilinear form in u and weight), about 2^-29; for all four r 2^-116. If it is not zero,
then either the tags do not add up to the functional of R, which everybody sees, or some tag_A is not that of the true x_A, which
every holder of K_A sees. The challenge comes after R, so a sender that looks for a lucky R hashes about 2^116 of them.

*Where that ends.* A wrong share passes only if some assigned A has no honest holder besides the sender. The others who hold A
are n-t; among t-1 colluders are t-2 besides the sender. So n-t > t-2 leaves an honest one: every committee with t = (n+1)/2.
With t = n/2 + 1 all t-1 colluders must hold A to deceive the rest; with t = n nobody can check anything.

*Who is named.* Tags that do not add up, or bytes that cannot be read, convict the sender before everybody. A wrong tag_A is the
sender's word against that of the n-t others who hold K_A. With t > n/2 they are no more than the t-1 who may collude, so a lie
and a slander look the same from outside: the lie is found, sender and accusers are known, the liar is not proved. With n = 3 and
t = 2 there is one accuser. (To show K_A would prove it, and give the key away while it is in use.)

*What the tags tell.* Nothing that the share does not. A coalition of t-1 members lacks the key of one A only. So it knows every
x_A of a share but at most one, that one as R minus the others, and computes all tags itself. Whoever holds fewer keys could be
told more of them and would still learn nothing. This holds for each single share, whatever other quorums were asked.
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
from bahefl_flwr.he.sampling import Generator, SecretSeed, digest, uniform
from bahefl_flwr.he.share_format import REPEATS, DecryptionShare, tag_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The random linear functionals of one share.

    Attributes:
      polynomials: u, coefficients 0..q_0-1, shape (REPEATS, N).
      slots: their NTT, shape (REPEATS, primes, N).
      weights: per block, 0..q_0-1, shape (REPEATS, blocks).
      params: gives the ring.
    """

    polynomials: Int64Array
    slots: Int64Array
    weights: Int64Array
    params: SecurityParams

    def of_residues(self, residues: NDArray[np.uint32]) -> Int64Array:
        """The functionals of polynomials in NTT domain, shape (blocks, primes, N); result (REPEATS, primes)."""
        out = np.empty((REPEATS, len(self.params.data_primes)), dtype=np.int64)
        for l, q in enumerate(self.params.data_primes):
            products = inner(residues[:, l], self.slots[:, l], (q,))[0]  # (blocks, REPEATS)
            out[:, l] = self._weighted(products, q)
        return out

    def of_noise(self, noise: Int64Array) -> Int64Array:
        """The functionals of small polynomials, by coefficients, shape (keys, blocks, N); result (keys, REPEATS, primes).

        The sum of u*x over the NTT slots is N times the constant coefficient of u*x: no transform of the noise is needed.
        """
        turned = np.concatenate([self.polynomials[:, :1], -self.polynomials[:, :0:-1]], axis=1)  # (REPEATS, N)
        primes, degree = self.params.data_primes, self.params.ring_degree
        out = np.empty((len(noise), REPEATS, len(primes)), dtype=np.int64)
        for tag, rows in zip(out, noise, strict=True):  # key by key: what is in use fits the second-level cache
            for l, (q, products) in enumerate(zip(primes, inner(rows, turned, primes), strict=True)):
                tag[:, l] = self._weighted(reduce(products * degree, q), q)
        return out

    def of_products(self, c1: NDArray[np.uint32], secrets: Int64Array) -> Int64Array:
        """The functionals of c1 * s_A for secrets of shape (keys, primes, N); result (keys, REPEATS, primes)."""
        out = np.empty((len(secrets), REPEATS, len(self.params.data_primes)), dtype=np.int64)
        for l, q in enumerate(self.params.data_primes):
            weighted = reduce(weighted_sum(c1[:, l], self.weights, q) * self.slots[:, l], q)  # (REPEATS, N)
            out[:, :, l] = inner(secrets[:, l], weighted, (q,))[0]
        return out

    def _weighted(self, products: Int64Array, q: int) -> Int64Array:
        """Sum over blocks of weight times (blocks, REPEATS) residues."""
        return reduce(reduce(products * self.weights.T, q).sum(axis=0), q)


def challenge(
    names: Sequence[bytes], residues: NDArray[np.uint32], position: int, quorum: Sequence[int], params: SecurityParams
) -> Challenge:
    """The functionals that belong to these residues, and that nobody knew before it had settled on them.

    Args:
      names: `block_names` of c1.
    """
    members = bytes(sorted(set(quorum)))
    seed = digest("share-challenge", params.digest(), position, members, b"".join(names), residue_bytes(residues))
    # A public value, in the type that starts a generator.
    generator = Generator(SecretSeed(seed))
    least = min(params.data_primes)
    polynomials = uniform(generator, least, REPEATS * params.ring_degree).reshape(REPEATS, -1)
    weights = uniform(generator, least, REPEATS * len(names)).reshape(REPEATS, -1)
    return Challenge(polynomials=polynomials, slots=ring(params).forward_all(polynomials), weights=weights, params=params)


def block_names(c1: NDArray[np.uint32]) -> list[bytes]:
    """A digest per block of c1: what its flooding noise, and the challenge, depend on."""
    return [digest("block", residue_bytes(block)) for block in c1]


def flooding_noise(names: Sequence[bytes], keys: Sequence[SubsetKey]) -> Int64Array:
    """What each key adds to its products with the blocks of these names, shape (keys, blocks, N)."""
    noise = np.empty((len(keys), len(names), keys[0].degree), dtype=np.int64)
    for key, blocks in zip(keys, noise, strict=True):
        for name, block in zip(names, blocks, strict=True):
            block[...] = key.flooding_noise(name)
    return noise


def tags(asked: Challenge, c1: NDArray[np.uint32], keys: Sequence[SubsetKey], noise: Int64Array) -> NDArray[np.uint32]:
    """The tags of these keys' contributions, shape (keys, REPEATS, primes)."""
    total = asked.of_noise(noise) + asked.of_products(c1, np.stack([key.secret for key in keys]))
    found: NDArray[np.uint32] = (total % np.array(asked.params.data_primes)).astype(np.uint32)
    return found


def verify_share(
    c1: NDArray[np.uint32],
    share: DecryptionShare,
    position: int,
    quorum: Sequence[int],
    params: SecurityParams,
    own: KeyShare | None = None,
) -> None:
    """Whether a share is what its sender had to answer for these blocks, as far as the caller's keys can tell.

    Checks:
      1. residues and tags have their form and range;
      2. the tags add up to the functional of the residues: needs no key;
      3. for every subset key that was assigned to the sender and is held here, the tag is the one computed here.

    Args:
      c1: of the aggregate, (blocks, primes, N), NTT domain: the same blocks that the share is for.
      own: the caller's key share of the aggregate's epoch; None outside the committee.

    Raises:
      ShareError: naming the position and, for check 3, the subset.
      WrongEpoch: `own` was made under other security parameters: the caller's mistake, nobody else's.
    """
    if own is not None and own.params != params:
        raise WrongEpoch("a share cannot be checked with keys of other security parameters: load those of the aggregate's epoch")
    check_residues(share.residues, c1, f"the share of position {position}", params)  # 1
    _check_tags(share, position, quorum, params)
    names = block_names(c1)
    asked = challenge(names, share.residues, position, quorum, params)
    totals = share.tags.sum(axis=0, dtype=np.int64) % np.array(params.data_primes)
    if not np.array_equal(totals, asked.of_residues(share.residues)):  # 2
        raise ShareError(
            f"the share of position {position} contradicts its own tags, or is for other blocks or another quorum than "
            f"{sorted(quorum)}: accuse it"
        )
    assigned = assign(quorum, params.committee, params.threshold)[position]
    keys = {i: own.keys[i] for i in assigned if i in own.keys} if own is not None else {}
    if not keys:
        return
    wanted = tags(asked, c1, list(keys.values()), flooding_noise(names, list(keys.values())))
    wrong = [i for i, tag in zip(keys, wanted, strict=True) if not np.array_equal(tag, share.tags[assigned.index(i)])]  # 3
    if wrong:
        raise ShareError(
            f"the share of position {position} is wrong: its contributions of subset keys {wrong}, which are held here too, are "
            "not the ones computed here; accuse it"
        )


def check_residues(residues: NDArray[np.uint32], like: NDArray[np.uint32], what: str, params: SecurityParams) -> None:
    """Form and range of residues (blocks, primes, N), as many blocks as `like` has.

    Raises:
      ShareError: naming `what`.
    """
    expected = (len(like), len(params.data_primes), params.ring_degree)
    if residues.dtype != np.uint32 or residues.shape != expected or not len(residues):
        raise ShareError(f"{what} is {residues.dtype}{residues.shape}, expected uint32{expected}: fetch it again")
    for l, q in enumerate(params.data_primes):
        if int(residues[:, l].max()) >= q:
            raise ShareError(f"{what} has a residue >= its prime {q}: it is damaged or forged")


def _check_tags(share: DecryptionShare, position: int, quorum: Sequence[int], params: SecurityParams) -> None:
    expected = tag_shape(position, quorum, params)
    if share.tags.dtype != np.uint32 or share.tags.shape != expected:
        found = f"{share.tags.dtype}{share.tags.shape}"
        raise ShareError(f"the tags of position {position} are {found}, expected uint32{expected}: accuse it")
    if (share.tags >= np.array(params.data_primes)).any():
        raise ShareError(f"a tag of position {position} is not below its prime: accuse it")
