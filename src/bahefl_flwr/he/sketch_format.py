"""One member's part in opening the sketches of a round, and its bytes. What tags prove is not checked here."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import ShareError
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.share_format import tag_shape

MOST_MEMBERS: Final = 256  # bits of the ledger's masks

_MAGIC: Final = b"BASK"
_HEADER: Final = struct.Struct("<4sBBHI")  # magic, version, primes, members, groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchShare:
    """One member's part in opening all sketches of a round, for one quorum.

    Attributes:
      values: group sums of c1 times the assigned subset secrets, flooded; uint32 of shape (sites, primes, groups).
      tags: uint32 of shape (assigned subsets in ascending order, REPEATS, primes); `sketch_proof` says what they prove.
    """

    values: NDArray[np.uint32]
    tags: NDArray[np.uint32]


def encode_sketch_share(share: SketchShare, members: Sequence[int], params: SecurityParams) -> bytes:
    """Canonical bytes of a share, for sealing to the sites.

    Args:
      members: indices of the sites whose sketches these are, ascending, one per row of `values`.

    Raises:
      ShareError: the indices do not fit the values; a caller's mistake.
    """
    indices = [int(member) for member in members]
    if share.values.ndim != 3 or len(indices) != len(share.values) or not _valid(indices):
        raise ShareError(f"members {indices} do not name the {len(share.values)} sketches of a share, once each and ascending")
    arrays = (np.array(indices), share.values, share.tags)
    header = _header(len(indices), share.values.shape[2], params)
    return header + b"".join(np.ascontiguousarray(array, dtype="<u4").tobytes() for array in arrays)


def decode_sketch_share(
    data: bytes, position: int, quorum: Sequence[int], groups: int, params: SecurityParams
) -> tuple[tuple[int, ...], SketchShare]:
    """Strictly parse the share that the member at `position` gave for `quorum`.

    Checks, in this order:
      1. the position is in the quorum;
      2. the bytes are long enough for a header, and name 1..256 members;
      3. the header is, byte for byte, the one these parameters and this number of groups give for that count;
      4. the length is exactly that of so many members, their values and the tags that position owes;
      5. member indices are ascending and below 256;
      6. every value and every tag is below its prime.

    Returns:
      The members, and read-only views into `data`; nothing of its size is allocated before check 4 has passed.

    Raises:
      ShareError: naming the position and the check that failed.
    """
    tags = tag_shape(position, quorum, params)  # 1
    count = _claimed_members(data, position)  # 2
    header = _header(count, groups, params)
    if data[: len(header)] != header:  # 3
        raise ShareError(
            f"position {position} sent sketches with the header {data[: len(header)].hex()}, expected {header.hex()}: it has "
            "another version, other parameters, or sent something else; accuse it"
        )
    values = (count, len(params.data_primes), groups)
    expected = len(header) + 4 * (count + math.prod(values) + math.prod(tags))
    if len(data) != expected:  # 4
        raise ShareError(f"position {position} sent {len(data)} bytes for the sketches of {count} members, expected {expected}")
    numbers = np.frombuffer(data, dtype="<u4", offset=len(header))
    members = tuple(numbers[:count].tolist())
    if not _valid(members):  # 5
        raise ShareError(
            f"position {position} sent sketches of members {list(members)}: not ascending, or not below {MOST_MEMBERS}"
        )
    share = SketchShare(
        values=numbers[count : count + math.prod(values)].reshape(values), tags=numbers[count + math.prod(values) :].reshape(tags)
    )
    primes = np.array(params.data_primes)
    if (share.values >= primes[:, None]).any() or (share.tags >= primes).any():  # 6
        raise ShareError(f"position {position} sent sketches with a number >= its prime: no honest encoder does, accuse it")
    return members, share


def _valid(members: Sequence[int]) -> bool:
    return all(a < b for a, b in zip((-1, *members), (*members, MOST_MEMBERS), strict=True))


def _claimed_members(data: bytes, position: int) -> int:
    if len(data) < _HEADER.size:
        raise ShareError(f"position {position} sent {len(data)} bytes, too few for the header of sketches: fetch them again")
    count = int(_HEADER.unpack_from(data)[3])
    if not 1 <= count <= MOST_MEMBERS:
        raise ShareError(f"position {position} sent sketches of {count} members, possible are 1 to {MOST_MEMBERS}: accuse it")
    return count


def _header(count: int, groups: int, params: SecurityParams) -> bytes:
    return _HEADER.pack(_MAGIC, params.wire_version, len(params.data_primes), count, groups)
