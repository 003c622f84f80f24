"""The sizes in the proof of an update: its masks, what the verifier lets pass, and what a cheat within that learns of the key.

Numbers only, from ring degree and block count: `params` derives the flooding from them. `update_proof` has the protocol.
"""

from __future__ import annotations

import math
from typing import Final

TERNARY_VARIANCE: Final = 2 / 3
ERROR_VARIANCE: Final = 10.5
# A repetition's challenge per block is one of 2N monomials: 16 times 13 bits. More would cost bytes and the verifier's time.
REPETITIONS: Final = 16
# Every coefficient of an answer is stored in 24 bits.
ANSWER_BYTES: Final = 3
# Masks are at least 12 times as wide as the norm of what they hide.
_MASK_FACTOR: Final = 12
# Lyubashevsky's tail: the rejection fails to hide with a chance of e^(-12^2 / 2) = 2^-103.
_TAIL: Final = 12
# Answers beyond 7 sigma, 2^-31 of all proofs, are tried again.
_LARGEST_SIGMAS: Final = 7
# `sampling.flooding` is 1.005 times as wide as its name, and has 1.02 times a Gaussian's Fisher information.
_MASK_WIDTH: Final = 1.005
_MASK_INFORMATION: Final = 1.02


def masks_log2(degree: int, blocks: int) -> tuple[int, int]:
    """Log2 of the standard deviations of the masks of the sums of u and of e.

    The smallest powers of two that are at least 12 times the norm of REPETITIONS sums over all blocks. Integers only, for
    prover and verifier must agree.
    """
    terms = 144 * REPETITIONS * blocks * _widened(degree)
    # The variances 2/3 and 21/2 in sixths.
    ternary, error = (next(k for k in range(64) if 6 * 4**k >= terms * sixths) for sixths in (4, 63))
    return ternary, error


def largest_answers(degree: int, blocks: int) -> tuple[int, int]:
    """Greatest magnitudes of a coefficient of an answer, for u and for e."""
    ternary, error = masks_log2(degree, blocks)
    return _LARGEST_SIGMAS << ternary, _LARGEST_SIGMAS << error


def largest_squares(degree: int, blocks: int) -> tuple[int, int]:
    """Greatest sums of the squares of the coefficients of one repetition's answer, for u and for e."""
    ternary, error = masks_log2(degree, blocks)
    return _widened(degree) << 2 * ternary, _widened(degree) << 2 * error


def provable(degree: int, blocks: int) -> bool:
    """Whether answers for that many blocks fit their 24 bits: 124 million parameters do."""
    return blocks >= 1 and max(largest_answers(degree, blocks)) < 1 << (8 * ANSWER_BYTES - 1)


def log_tries(degree: int, blocks: int) -> float:
    """Natural logarithm of the mean number of tries until an answer is not rejected: 0.7 to 1.5."""
    ternary, error = masks_log2(degree, blocks)
    terms = REPETITIONS * blocks * _widened(degree)
    shift = terms * (TERNARY_VARIANCE / 4.0**ternary + ERROR_VARIANCE / 4.0**error) * _MASK_INFORMATION / _MASK_WIDTH**2
    return _TAIL * math.sqrt(shift) + shift / 2


def cheat_norms(degree: int, blocks: int, work_log2: float) -> tuple[float, float]:
    """Greatest Euclidean norms of u and e in a block with a proof, for a site that tries 2^work_log2 hashes.

    With that work some repetition answers a part delta of its challenges, 2^(-work_log2 / REPETITIONS). For any two of those,
    (X^i - X^j) times (u, e) is at most twice the verifier's bound. Over the complex roots the mean of |X^i - X^j|^2 over a set
    of that part is least for an arc: `update_proof` has the argument.
    """
    part = 2.0 ** (-work_log2 / REPETITIONS)
    mean = math.sin(math.pi * part) / (2 * degree * part * math.sin(math.pi / (2 * degree)))
    ternary, error = (2 * math.sqrt(square / (2 - 2 * mean**2)) for square in largest_squares(degree, blocks))
    return ternary, error


def cheat_divergence(degree: int, blocks: int, sigma_log2: float, *, weight: int, openings: int, work_log2: float) -> float:
    """Kullback-Leibler divergence, in nats, that openings with cheats in them have from openings without.

    A cheat's share of an opening is weight * (e * s_A - u * e_A), with e and u as it likes and s_A, e_A of the one subset that
    t-1 colluders do not hold; what hides it is the flooding of that subset.

    Args:
      sigma_log2: of the flooding of one subset key.
      weight: of all cheating sites together, for their cheats add up.
    """
    ternary, error = cheat_norms(degree, blocks, work_log2)
    # Two blocks that answer together may hold twice what one may: the most that any spreading gains (measured, security.md).
    squares = 2 * degree * (error**2 * TERNARY_VARIANCE + ternary**2 * ERROR_VARIANCE)
    return float(openings * weight**2 * squares / (2 * 4.0**sigma_log2))


def _widened(degree: int) -> int:
    """N + 6 sqrt(N): a sum of N squares stays below that many variances in all but a ten-thousandth of cases."""
    return degree + 6 * math.isqrt(degree)
