"""Who asks a store: the account's signature that every request carries, made and checked.

Pure: text, signatures and clocks handed in. Whether the account may ask is not decided here. Reasons: docs/adr/0013.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from coincurve import PublicKey
from eth_hash.auto import keccak

SCHEME = "Bahefl1"

Sign = Callable[[bytes], bytes]
"""From a text to its EIP-191 signature: r, s and v, 65 bytes."""

_HEADER = re.compile(rf"{SCHEME} (0x[0-9a-fA-F]{{40}}) ([0-9]{{1,12}}) ([0-9a-f]{{64}}) ([0-9a-f]{{130}})", re.ASCII)
# Half the order of secp256k1. With the upper half every signature would have a twin.
_LARGEST_S = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0


class BadSignature(ValueError):
    """A request that no account stands for. Its text goes back to whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says about itself, before it is believed.

    Attributes:
      address: of the account, as it was written. time: Unix seconds by the sender's clock.
      body: SHA-256 of the body, 32 bytes. signature: r, s and v.
    """

    address: str
    time: int
    body: bytes
    signature: bytes


def authorization(sign: Sign, address: str, method: str, path: str, body: bytes, time: int) -> str:
    """The value of a request's `Authorization` header.

    Args:
      path: from "/v1/" on, whatever stands before it in the store's URL. body: SHA-256 of the body. time: Unix seconds.
    """
    signature = sign(signed_text(method, path, body, time))
    return f"{SCHEME} {address} {time} {body.hex()} {signature.hex()}"


def signed_text(method: str, path: str, body: bytes, time: int) -> bytes:
    """What an account signs, to be read by people as well. No line of it can be mistaken for another."""
    return f"bahefl store request, version 1\n{method} {path}\nbody sha256 {body.hex()}\nunix time {time}\n".encode()


def read_claim(header: str) -> Claim:
    """Parse an `Authorization` header.

    Raises:
      BadSignature: it is not of the one form.
    """
    found = _HEADER.fullmatch(header)
    if found is None:
        raise BadSignature("the request is not signed as this store asks: use a client of bahefl_flwr of the same version")
    return Claim(address=found[1], time=int(found[2]), body=bytes.fromhex(found[3]), signature=bytes.fromhex(found[4]))


def check(claim: Claim, method: str, path: str, now: float, window_s: float) -> str:
    """The account that signed a request, as a lower-case address.

    Checks: (1) its time is within the window around ours, (2) the signature has the one form of its kind, (3) it is one of
    exactly this method, path, body and time, by the account that the request names.

    Raises:
      BadSignature: naming the first check that failed.
    """
    ahead = claim.time - now
    if abs(ahead) > window_s:  # 1
        raise BadSignature(
            f"your clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the store's, at most {window_s:.0f} s are "
            "allowed: set both by NTP"
        )
    found = signer(signed_text(method, path, claim.body, claim.time), claim.signature)  # 2
    if found != claim.address.lower():  # 3
        raise BadSignature(f"this is not {claim.address}'s signature of this request: does a proxy on the way rewrite paths?")
    return found


def signer(text: bytes, signature: bytes) -> str:
    """The account (lower-case address) that signed a text by EIP-191: r, s and v, 65 bytes.

    No transaction begins as such a text does, hence what is signed here can move no money and cast no vote.

    Raises:
      BadSignature: it is not of the one form of its kind, or nobody's.
    """
    r_s, v = signature[:64], signature[64:]
    if v not in (b"\x1b", b"\x1c") or int.from_bytes(r_s[32:], "big") > _LARGEST_S:
        raise BadSignature("the signature is not of the one form that Ethereum accounts make")
    digest = keccak(b"\x19Ethereum Signed Message:\n%d%b" % (len(text), text))
    try:
        key = PublicKey.from_signature_and_message(r_s + bytes((v[0] - 27,)), digest, hasher=None)
    except ValueError:
        raise BadSignature("no account's key gives this signature") from None
    return f"0x{keccak(key.format(compressed=False)[1:])[-20:].hex()}"
