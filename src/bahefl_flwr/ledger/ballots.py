"""The sealed form of a ballot, as the contract compares it. Pure; how a site votes is decided elsewhere."""

from __future__ import annotations

from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

_WORD = 32


def ballot_commitment(number: int, address: str, choice: int, salt: bytes) -> bytes:
    """What a site casts: it fixes the choice, hides it as long as the salt is secret, and is of no use to another site.

    Args:
      number: the round. address: the site's account. salt: 32 secret random bytes.

    Raises:
      ValueError: the salt is not 32 bytes long.
    """
    if len(salt) != _WORD:
        raise ValueError(f"a salt has {_WORD} bytes, not {len(salt)}")
    account = to_canonical_address(address).rjust(_WORD, b"\0")
    return keccak(number.to_bytes(_WORD, "big") + account + choice.to_bytes(_WORD, "big") + salt)
