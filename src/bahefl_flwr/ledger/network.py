"""A Besu network to be: its validators, their node keys and hosts, and what is wrong with what an operator asked for.

Which files a network is made of is genesis.py's business; nothing here is written or talks to a node.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from coincurve import PrivateKey, PublicKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from bahefl_flwr.errors import SettingsError

FEWEST_VALIDATORS = 4
MOST_VALIDATORS = 100
P2P_PORT = 30303
IMAGE = "hyperledger/besu:25.8.0"
TRIAL_SUBNET = ipaddress.IPv4Network("172.28.62.0/24")
"""Where the containers of a trial are, all on one machine."""

_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


class NodeKey:
    """A validator's secp256k1 key. Prints redacted, refuses pickling; `secret_file` is the only way out."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = PrivateKey(secret)

    @classmethod
    def fresh(cls) -> NodeKey:
        """A new random key."""
        return cls((1 + secrets.randbelow(_SECP256K1_ORDER - 1)).to_bytes(32, "big"))

    def __repr__(self) -> str:
        return "<NodeKey redacted>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("NodeKey holds a secret and is not pickled or copied")

    @property
    def public(self) -> bytes:
        """Public key, 64 bytes: what an enode URL names."""
        return bytes(self._key.public_key.format(compressed=False)[1:])

    def secret_file(self) -> bytes:
        """Content of Besu's node key file."""
        return f"0x{self._key.to_hex():0>64}".encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """One node that seals blocks.

    Attributes:
      public: its public key, 64 bytes. host: IP address or name under which the others reach it.
      key: its secret, if it was made here; None if its operator made it.
    """

    public: bytes
    host: str
    key: NodeKey | None = None

    @property
    def address(self) -> str:
        """Checksummed address: what the genesis block and the seals name."""
        return str(to_checksum_address(keccak(self.public)[-20:]))

    @property
    def enode(self) -> str:
        """URL under which its peers dial it."""
        return f"enode://{self.public.hex()}@{self.host}:{P2P_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network to be.

    Attributes:
      validators: in the order of their folders. accounts: addresses that alone may send transactions; empty for everybody who
        reaches a node (the contract has its own whitelist in any case).
      block_period_s: seconds between blocks. trial: all nodes are containers of one machine.
    """

    chain_id: int
    validators: tuple[Validator, ...]
    accounts: tuple[str, ...] = ()
    block_period_s: int = 2
    image: str = IMAGE
    trial: bool = False

    @property
    def tolerated(self) -> int:
        """Validators that may fail or lie while the chain goes on."""
        return (len(self.validators) - 1) // 3


def plan(
    *, chain_id: int, validators: int = 0, public_keys: Sequence[str] = (), hosts: Sequence[str] = (),
    accounts: Sequence[str] = (), block_period_s: int = 2, image: str = IMAGE, lab: bool = False,
) -> Network:  # fmt: skip
    """A network of so many new validators, or of those whose operators made their own keys.

    Args:
      validators: how many, with keys made here; or `public_keys`: hex of 64 bytes each, keys made by `bahefl ledger node-key`.
      hosts: one for each validator; none for a trial with all of them on this machine.
      lab: allow fewer validators than can tolerate a fault.

    Raises:
      SettingsError: too few or too many validators, or a host, account or key that is none; says what to give instead.
    """
    keys = [None] * len(public_keys) if public_keys else [NodeKey.fresh() for _ in range(validators)]
    if public_keys and validators not in (0, len(public_keys)):
        raise SettingsError(
            f"{validators} validators, but {len(public_keys)} public keys: give one for each, or leave the number out"
        )
    _check_count(len(keys), lab=lab)
    if hosts and len(hosts) != len(keys):
        raise SettingsError(f"{len(keys)} validators, but {len(hosts)} hosts: give --host once for each, in the same order")
    public = [_public_key(text) for text in public_keys] or [key.public for key in keys if key]
    if len(set(public)) != len(public):
        raise SettingsError("two validators have the same public key: every operator makes its own (bahefl ledger node-key)")
    at = _hosts(hosts) or [str(TRIAL_SUBNET[10 + i]) for i in range(len(keys))]
    if chain_id < 1 or block_period_s < 1:
        raise SettingsError(f"chain id {chain_id} and block period {block_period_s} s must be at least 1")
    return Network(
        chain_id=chain_id,
        validators=tuple(Validator(public=p, host=h, key=k) for p, h, k in zip(public, at, keys, strict=True)),
        accounts=tuple(_account(a) for a in accounts),
        block_period_s=block_period_s,
        image=image,
        trial=not hosts,
    )


def _check_count(count: int, *, lab: bool) -> None:
    if count > MOST_VALIDATORS or count < 1:
        raise SettingsError(f"{count} validators: give 1 to {MOST_VALIDATORS} (--validators or --public-key)")
    if count < FEWEST_VALIDATORS and not lab:
        raise SettingsError(
            f"{count} validators tolerate no fault: with one of them down or lying the chain stops, since QBFT needs more than "
            f"two thirds. Give at least {FEWEST_VALIDATORS} (they tolerate one), or --lab for a network to try things out"
        )


def _hosts(texts: Sequence[str]) -> list[str]:
    at = [_host(text).lower() for text in texts]
    for host in at if len(at) > 1 else ():
        here = host.startswith("127.") or host in ("localhost", "[::1]", "[::]", "0.0.0.0")  # noqa: S104
        if here or at.count(host) > 1:
            raise SettingsError(
                f"{host} {'cannot be reached from another machine' if here else 'is the host of two validators'}: each has its "
                f"own, port {P2P_PORT}. Give the address the others see; for a trial on one machine leave --host out"
            )
    return at


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if ":" not in text else f"[{ipaddress.ip_address(text)}]"
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not text.replace(".", "").isdigit():
            return text
    raise SettingsError(f"{text!r} is no IP address or host name")


def _account(text: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise SettingsError(f"{text!r} is no account address (0x and 40 hex digits)")
    return to_checksum_address(text)


def _public_key(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.strip().removeprefix("0x"))
        PublicKey(b"\x04" + raw)
    except ValueError:
        raise SettingsError(f"{text[:20]!r}... is no node's public key: 128 hex digits, as in node.pub") from None
    return raw
