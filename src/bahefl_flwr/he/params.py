"""Everything that can change what the encryption guarantees: `SecurityParams`, and the noise and precision that follow from it.

No setting of mere speed lives here, and no key material.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.he.proof_bounds import ERROR_VARIANCE, TERNARY_VARIANCE, cheat_divergence

RING_DEGREE: Final = 4096
# The primes SEAL 4.x picks for bit sizes [30, 30, 30, 16] at degree 4096; all are 1 mod 8192, hence fit every smaller ring too.
DATA_PRIMES: Final = (1073651713, 1073668097, 1073692673)
# Only there so that SEAL accepts the context: no key and no ciphertext has residues modulo it.
SPECIAL_PRIME: Final = 40961
FIELDS: Final = 3
PARAMETERS_PER_BLOCK: Final = FIELDS * RING_DEGREE
WIRE_VERSION: Final = 1

# Bits of a plaintext coefficient: noise below, three fields above. Just under log2 of the product of the data primes.
_COEFFICIENT_BITS: Final = 90
_FIELD_BITS: Final = (19, 18, 17, 16, 15, 14)
# Fields are filled to 31/32 of what the rounding of every site leaves; the rest is for the noise that reaches the lowest field.
_HEADROOM: Final = 32
_LARGEST_FAILURE_LOG2: Final = -1000
_FLOODING_STATISTICAL_BITS: Final = 30
# What flooding allows for cheats within the proof's bounds: half of the sites in league, each with 2^32 hashes per update of a
# million parameters, in an epoch of 50 rounds with two different sums opened in each, learn at most one nat of the key. Sketches
# get the smaller part of it: their fields have more room for noise.
_CHEAT_BLOCKS: Final = 82
_CHEAT_WORK_LOG2: Final = 32
_EPOCH_ROUNDS: Final = 50
_SUMS_PER_ROUND: Final = 2
_NATS_OF_SUMS: Final = 0.75
_NATS_OF_SKETCHES: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityParams:
    """The parameters all sites must share; their digest is on the ledger.

    Attributes:
      update_range: R; each parameter of an update is clipped to [-R, R] before encryption.
      weight_bits: the coordinator multiplies updates by integers 1..2**weight_bits, 0..3.
      threshold: committee members needed to decrypt, t. More than half of the committee, or 1 (the paper's single key).
      committee: members of the key committee, n, 2..10.
      sites: most ciphertexts ever added up, 2..255. The flooding noise hides the noise of a sum of that many.
      ring_degree: N; 4096 unless `toy`.
      toy: admits any small ring degree, WITHOUT ANY SECURITY. For tests only. It is part of the digest, so a run of
        real sites, whose ledger names the digest of real parameters, cannot be talked into it.
      wire_version: version of the byte formats.
    """

    update_range: float
    weight_bits: int
    threshold: int
    committee: int
    sites: int = 16
    ring_degree: int = RING_DEGREE
    toy: bool = False
    wire_version: int = WIRE_VERSION

    def __post_init__(self) -> None:
        for holds, complaint in self._requirements():
            if not holds:
                raise SettingsError(f"security parameters refused: {complaint}")

    def _requirements(self) -> list[tuple[bool, str]]:
        n, t, degree = self.committee, self.threshold, self.ring_degree
        small = self.toy and degree in {2**k for k in range(4, 12)}
        return [
            (
                math.isfinite(self.update_range) and 0 < self.update_range <= 1024,
                f"update_range={self.update_range} is not in (0, 1024]",
            ),
            (0 <= self.weight_bits <= 3, f"weight_bits={self.weight_bits} is not in 0..3"),
            (2 <= n <= 10, f"committee={n} is not in 2..10"),
            (
                1 <= t <= n and (t == 1 or 2 * t > n),
                f"threshold={t} is neither a majority of committee={n} nor 1 (the single key)",
            ),
            (2 <= self.sites <= 255, f"sites={self.sites} is not in 2..255"),
            (
                degree == RING_DEGREE or small,
                f"ring_degree={degree} is not {RING_DEGREE}, or toy=True and a power of two from 16 to 2048",
            ),
            (self.wire_version == WIRE_VERSION, f"wire_version={self.wire_version}, this package speaks {WIRE_VERSION}"),
        ]

    @property
    def data_primes(self) -> tuple[int, ...]:
        """RNS primes of keys and ciphertexts, in SEAL's order."""
        return DATA_PRIMES

    @property
    def special_prime(self) -> int:
        """SEAL's key-switching prime; part of the TenSEAL context only."""
        return SPECIAL_PRIME

    @property
    def fields(self) -> int:
        """Parameters per coefficient."""
        return FIELDS

    @property
    def field_bits(self) -> int:
        """Width of a field, 17..19 bits: chosen so that rounding and flooding noise together do least harm."""
        return _field_bits(self)

    @property
    def noise_bits(self) -> int:
        """Bits of a plaintext coefficient below the fields; noise lives there."""
        return _COEFFICIENT_BITS - FIELDS * self.field_bits

    @property
    def flooding_sigma_log2(self) -> int:
        """Log2 of the standard deviation of the noise each subset key adds to a decryption share."""
        return flooding_sigma_log2(self)

    @property
    def field_scale(self) -> int:
        """Integer that the value `update_range` of a site with the whole weight becomes."""
        return _field_scale(self, self.field_bits)

    @property
    def parameters_per_block(self) -> int:
        """Model parameters in one ciphertext: 12288, less in a toy ring."""
        return FIELDS * self.ring_degree

    def blocks(self, parameters: int) -> int:
        """Ciphertexts needed for that many model parameters."""
        return -(-parameters // self.parameters_per_block)

    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding, derived values included; 32 bytes."""
        primes = (*self.data_primes, self.special_prime)
        integers = (self.wire_version, self.ring_degree, int(self.toy), len(primes), *primes, self.fields, self.field_bits)
        more = (
            self.noise_bits,
            self.field_scale,
            self.flooding_sigma_log2,
            self.weight_bits,
            self.threshold,
            self.committee,
            self.sites,
        )
        words = (*integers, *more)
        return hashlib.sha256(b"bahefl/security-params" + struct.pack(f"<{len(words)}Qd", *words, self.update_range)).digest()


def subset_count(params: SecurityParams) -> int:
    """Subsets of t-1 committee members: the number of independent keys that make the collective one."""
    return math.comb(params.committee, params.threshold - 1)


def fresh_noise_std(params: SecurityParams) -> float:
    """Standard deviation of a coefficient of a fresh ciphertext's noise, u*e + e0 + e1*s.

    Secret and key error are sums of `subset_count` independent ternary and centred binomial polynomials. Measured 2^9.6 for
    committee 5, threshold 3 (research/he.md, section 3).
    """
    cross_terms = 2 * params.ring_degree * subset_count(params) * TERNARY_VARIANCE * ERROR_VARIANCE
    return math.sqrt(cross_terms + ERROR_VARIANCE)


def aggregate_noise_std(params: SecurityParams) -> float:
    """Standard deviation of the noise of a sum of `sites` ciphertexts, all with the greatest weight."""
    return fresh_noise_std(params) * math.sqrt(params.sites) * (1 << params.weight_bits)


@lru_cache(maxsize=64)
def flooding_sigma_log2(params: SecurityParams) -> int:
    """Log2 of the least power of two that hides both the noise of honest sums and the cheats of dishonest sites.

    1. sigma >= sqrt(12) * 2^(30/2) * B, with B five standard deviations of the aggregate's noise;
    2. `epoch_divergence` is at most 3/4 of a nat. This one decides by far: the proof of an update lets through a thousand times
       what an honest site draws, and the cheats of several sites add up (docs/security.md, section 8).

    Every subset key floods with the full sigma, because t-1 colluding members know the noise of all subsets but one.

    Source: for 1, Li, Micciancio, Schultz, Sorrell, "Securing approximate homomorphic encryption", CRYPTO 2022, with 30
    statistical bits and one query per ciphertext; equal ciphertexts get equal noise: asking again is no second query.
    """
    honest = _flooding_over(aggregate_noise_std(params))
    cheats = 0.5 * math.log2(_epoch_divergence(params, 0, _CHEAT_BLOCKS, _CHEAT_WORK_LOG2) / _NATS_OF_SUMS)
    return math.ceil(max(honest, cheats))


def sketch_noise_std(params: SecurityParams, blocks: int, groups: int) -> float:
    """Standard deviation of the ciphertext noise in a group sum: `blocks` * N / `groups` coefficients of fresh ciphertexts."""
    return fresh_noise_std(params) * math.sqrt(blocks * params.ring_degree / groups)


def sketch_sigma_log2(params: SecurityParams, blocks: int, groups: int) -> int:
    """Log2 of the standard deviation of the noise each subset key adds to a group sum of one update's sketch.

    By the rules of `flooding_sigma_log2`:
      1. with B five standard deviations of the sketch's noise; one update is opened, so that no weight enters;
      2. the sketches of an epoch, one a round of each colluding site, tell at most 1/4 of a nat. A sketch takes every coefficient
         with a sign, so that a cheat's share of its sums is as long as of an opening's coefficients.
    """
    honest = _flooding_over(sketch_noise_std(params, blocks, groups))
    cheats = 0.5 * math.log2(_sketches_divergence(params, 0, _CHEAT_WORK_LOG2) / _NATS_OF_SKETCHES)
    return math.ceil(max(honest, cheats))


def sketch_divergence(params: SecurityParams, blocks: int, groups: int) -> float:
    """Kullback-Leibler divergence between the opened sketch of one honest update and one independent of ciphertext noise.

    For 1 M parameters and 256 groups 2^-33 or less; the samples are `groups` per update, not N per block as in an opening.
    """
    shift = sketch_noise_std(params, blocks, groups) / 2.0 ** sketch_sigma_log2(params, blocks, groups)
    return float(shift**2 * groups / 2)


def sketch_error_std(params: SecurityParams, blocks: int, groups: int) -> float:
    """Standard deviation of the noise in the lowest field of an opened group sum, in units of that field.

    Flooding of all subset keys, and the rounding to whole units.
    """
    noise = math.hypot(
        2.0 ** sketch_sigma_log2(params, blocks, groups) * math.sqrt(subset_count(params)),
        sketch_noise_std(params, blocks, groups),
    )
    return math.hypot(noise / 2.0**params.noise_bits, math.sqrt(1 / 12))


def largest_field_sum(params: SecurityParams) -> int:
    """Largest magnitude of a field of an opened group sum that counts as in range: 31/32 of what the field holds."""
    return ((_HEADROOM - 1) << (params.field_bits - 1)) // _HEADROOM


def epoch_divergence(params: SecurityParams, blocks: int = _CHEAT_BLOCKS, work_log2: float = _CHEAT_WORK_LOG2) -> float:
    """Kullback-Leibler divergence, in nats, of what an epoch's openings tell colluding sites and t-1 key holders of the key.

    Args:
      blocks: of an update; each has its own proof of the same form.
      work_log2: log2 of the hashes that a cheating site spends on each update.
    """
    return _epoch_divergence(params, params.flooding_sigma_log2, blocks, work_log2)


def epoch_sketch_divergence(params: SecurityParams, blocks: int, groups: int, work_log2: float = _CHEAT_WORK_LOG2) -> float:
    """The same for the opened sketches of colluding sites, of updates of a million parameters."""
    return _sketches_divergence(params, sketch_sigma_log2(params, blocks, groups), work_log2)


def colluding_sites(params: SecurityParams) -> int:
    """Sites in league that the flooding allows for: half of them. A majority confirms and screens, and must be honest anyway."""
    return params.sites // 2


def _epoch_divergence(params: SecurityParams, sigma_log2: int, blocks: int, work_log2: float) -> float:
    weight = colluding_sites(params) << params.weight_bits
    openings = _EPOCH_ROUNDS * _SUMS_PER_ROUND
    return cheat_divergence(params.ring_degree, blocks, sigma_log2, weight=weight, openings=openings, work_log2=work_log2)


def _sketches_divergence(params: SecurityParams, sigma_log2: int, work_log2: float) -> float:
    openings = _EPOCH_ROUNDS * colluding_sites(params)
    return cheat_divergence(params.ring_degree, _CHEAT_BLOCKS, sigma_log2, weight=1, openings=openings, work_log2=work_log2)


def opening_divergence(params: SecurityParams, blocks: int) -> float:
    """Kullback-Leibler divergence between a flooded opening of `blocks` blocks and one that is independent of ciphertext noise.

    For 1 M parameters and five honest sites about 2^-33. What dishonest ones add is `epoch_divergence`.
    """
    shift = aggregate_noise_std(params) / 2.0**params.flooding_sigma_log2
    return float(shift**2 * blocks * params.ring_degree / 2)


def decoding_error_std(params: SecurityParams) -> float:
    """Standard deviation of the error of an opened parameter, in units of the update, when the weights sum to 1.

    Rounding at every site, and flooding noise in the third of the parameters that lie in the lowest field.
    """
    return _error_std(params, params.field_bits)


def decoding_failure_log2(params: SecurityParams) -> float:
    """Log2 of (a bound on) the probability that one coefficient's noise leaves the lowest field and spoils a neighbour."""
    return _failure_log2(params, params.field_bits)


def security_bits(degree: int, modulus_bits: float) -> float:
    """Classical bits of security of RLWE with ternary secrets and our error, against the primal lattice attack.

    158 for our keys and ciphertexts (degree 4096, 90 bits), 132 with the special prime (106 bits), 128 at the HE standard's
    limit for that degree (109 bits).

    Source: Alkim et al., "Post-quantum key exchange", 2016, with Bai-Galbraith scaling; cost of a block size b in dimension d as
    the HE standard has it, 2^(0.292 b + 16.4) for each of 8 d calls.
    """
    error = math.sqrt(ERROR_VARIANCE)
    scaling = degree * math.log2(error / math.sqrt(TERNARY_VARIANCE))

    def breaks(block: int, samples: int) -> bool:
        """Whether BKZ of this block size finds the short vector, given so many samples: lengths and volume as log2."""
        dimension = degree + samples + 1
        volume = (samples * modulus_bits + scaling) / dimension
        root_hermite = math.log2((math.pi * block) ** (1 / block) * block / (2 * math.pi * math.e)) / (2 * (block - 1))
        return math.log2(error) + 0.5 * math.log2(block) <= (2 * block - dimension - 1) * root_hermite + volume

    def cost(samples: int) -> float:
        """Log2 of the operations of the cheapest block size that breaks the key."""
        block = bisect_left(range(4 * degree), True, lo=50, key=lambda b: breaks(b, samples))
        return 0.292 * block + 16.4 + math.log2(8 * (degree + samples + 1))

    return min(cost(samples) for samples in range(degree // 2, 2 * degree, degree // 64))


def security_after(nats: float) -> float:
    """The estimate for a key of the real ring of which noisy linear equations have told so many nats.

    They make the ellipsoid of the attack's short vector smaller by that, as a larger modulus would (Dachman-Soled, Ducas, Gong,
    Rossi, "LWE with side information", CRYPTO 2020).
    """
    # The best attack takes about N samples, whose moduli make the volume.
    more = nats / math.log(2) / RING_DEGREE
    return security_bits(RING_DEGREE, math.log2(math.prod(DATA_PRIMES)) + more)


def _flooding_over(noise_std: float) -> float:
    return math.log2(math.sqrt(12) * 5 * noise_std) + _FLOODING_STATISTICAL_BITS / 2


def _opening_noise_std(params: SecurityParams) -> float:
    return math.hypot(2.0**params.flooding_sigma_log2 * math.sqrt(subset_count(params)), aggregate_noise_std(params))


def _field_scale(params: SecurityParams, field_bits: int) -> int:
    room = (1 << (field_bits - 1 - params.weight_bits)) - (params.sites + 1) // 2
    return room * (_HEADROOM - 1) // _HEADROOM


def _error_std(params: SecurityParams, field_bits: int) -> float:
    noise = _opening_noise_std(params) / 2.0 ** (_COEFFICIENT_BITS - FIELDS * field_bits)
    # At random, up or down (`packing.pack`): of values spread over many steps a sixth of a step's square.
    rounding = math.sqrt(params.sites / 6)
    return math.hypot(noise, rounding) * params.update_range / _field_scale(params, field_bits)


def _failure_log2(params: SecurityParams, field_bits: int) -> float:
    scale = _field_scale(params, field_bits)
    fill = scale * 2**params.weight_bits + params.sites * 2**params.weight_bits / 2
    room = (2 ** (field_bits - 1) - fill) * 2.0 ** (_COEFFICIENT_BITS - FIELDS * field_bits)
    return float(1 - 0.5 * (max(room, 0) / _opening_noise_std(params)) ** 2 / math.log(2))


@lru_cache(maxsize=64)
def _field_bits(params: SecurityParams) -> int:
    # With very many sites the width of least error would leave the noise no room above the sum.
    roomy = [bits for bits in _FIELD_BITS if _failure_log2(params, bits) < _LARGEST_FAILURE_LOG2]
    return min(roomy or _FIELD_BITS[-1:], key=lambda bits: _error_std(params, bits))
