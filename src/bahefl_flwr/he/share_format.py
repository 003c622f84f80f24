"""A decryption share of one part, and its bytes: residues as a "BAHC" part, then tags. What tags prove is not checked here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import MalformedCiphertext, ShareError
from bahefl_flwr.he.keys import assign
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part, encode_part

# Tags per subset key and prime. Each catches a wrong contribution but for a chance of 2^-29.
REPEATS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecryptionShare:
    """One member's part in opening the blocks of a part, for one quorum.

    Attributes:
      residues: c1 times the assigned subset secrets, flooded; uint32 of shape (blocks, primes, N), NTT domain.
      tags: uint32 of shape (assigned subsets in ascending order, REPEATS, primes); `share_proof` says what they prove.
    """

    residues: NDArray[np.uint32]
    tags: NDArray[np.uint32]


def encode_share(share: DecryptionShare, params: SecurityParams) -> bytes:
    """Canonical bytes of a share, for sealing to the sites."""
    return encode_part(share.residues, PartKind.SHARE, params) + np.ascontiguousarray(share.tags, dtype="<u4").tobytes()


def decode_share(
    data: bytes, position: int, quorum: Sequence[int], params: SecurityParams, max_blocks: int = BLOCKS_PER_PART
) -> DecryptionShare:
    """Strictly parse the share that the member at `position` gave for `quorum`.

    Checks, in this order:
      1. the position is in the quorum;
      2. without the tags that position owes, the bytes are a share part by the checks of `decode_part`;
      3. every tag is below its prime.

    Returns:
      Read-only views into `data`.

    Raises:
      ShareError: naming the position and the check that failed.
    """
    shape = tag_shape(position, quorum, params)  # 1
    body = len(data) - 4 * math.prod(shape)
    try:
        residues = decode_part(data[: max(body, 0)], PartKind.SHARE, params, max_blocks)  # 2
    except MalformedCiphertext as error:
        raise ShareError(f"position {position} sent a share that cannot be read ({error}): accuse it") from None
    tags = np.frombuffer(data, dtype="<u4", offset=body).reshape(shape)
    if (tags >= np.array(params.data_primes)).any():  # 3
        raise ShareError(f"position {position} sent a share with a tag >= its prime: no honest encoder writes that, accuse it")
    return DecryptionShare(residues=residues, tags=tags)


def tag_shape(position: int, quorum: Sequence[int], params: SecurityParams) -> tuple[int, int, int]:
    """(assigned subsets, REPEATS, primes) for a member of a quorum.

    Raises:
      ShareError: the position is not in the quorum, or that is none.
    """
    assigned = assign(quorum, params.committee, params.threshold)
    if position not in assigned:
        raise ShareError(f"position {position} is not in the quorum {sorted(quorum)} and has no share to give")
    return len(assigned[position]), REPEATS, len(params.data_primes)
