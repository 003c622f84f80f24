"""A Besu QBFT network as files: node keys, genesis block, permissions, one folder for each operator.

Pure but for `write_*`: from validators to file contents. Nothing here talks to a node.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import rlp
import tomli_w
import yaml
from coincurve import PrivateKey, PublicKey
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.ledger.operators_page import operators_page

FEWEST_VALIDATORS = 4
MOST_VALIDATORS = 100
P2P_PORT = 30303
RPC_PORT = 8545
IMAGE = "hyperledger/besu:25.8.0"

# Every QBFT block has this: "ctical byzantine fault tolerance" as bytes.
_MIX_HASH = "0x63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365"
_VANITY = bytes(32)
_GAS_LIMIT = 30_000_000
_EPOCH_BLOCKS = 30_000
_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_TRIAL_SUBNET = ipaddress.IPv4Network("172.28.62.0/24")
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
    at = _hosts(hosts) or [str(_TRIAL_SUBNET[10 + i]) for i in range(len(keys))]
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


# The genesis block


def extra_data(validators: Sequence[str]) -> str:
    """QBFT's extra data of the first block, "0x...": RLP of vanity, validators ascending, no vote, round 0, no seals."""
    addresses = sorted(bytes.fromhex(address.removeprefix("0x")) for address in validators)
    return "0x" + bytes(rlp.encode([_VANITY, addresses, [], b"", []])).hex()


def validators_in(extra: str) -> tuple[str, ...]:
    """Checksummed addresses of the validators that a block's QBFT extra data names.

    Raises:
      SettingsError: it is no QBFT extra data.
    """
    try:
        decoded = rlp.decode(bytes.fromhex(extra.removeprefix("0x")))
        vanity, addresses, *rest = decoded
        if len(vanity) != 32 or len(rest) != 3 or any(len(a) != 20 for a in addresses):
            raise ValueError
    except (ValueError, TypeError, rlp.exceptions.DecodingError):
        raise SettingsError(f"{extra[:40]}... is no QBFT extra data") from None
    return tuple(to_checksum_address(a) for a in addresses)


def genesis(network: Network) -> dict[str, Any]:
    """The genesis file: London rules as the contract is compiled for, free gas, QBFT."""
    return {
        "config": {
            "chainId": network.chain_id,
            "londonBlock": 0,
            "zeroBaseFee": True,
            "qbft": {
                "epochlength": _EPOCH_BLOCKS,
                "blockperiodseconds": network.block_period_s,
                "requesttimeoutseconds": 2 * network.block_period_s,
            },
        },
        "nonce": "0x0",
        "timestamp": "0x0",
        "extraData": extra_data([v.address for v in network.validators]),
        "gasLimit": hex(_GAS_LIMIT),
        "difficulty": "0x1",
        "baseFeePerGas": "0x0",
        "mixHash": _MIX_HASH,
        "coinbase": "0x" + "00" * 20,
        # Gas is free, so nobody needs money.
        "alloc": {},
    }


# A node's files


def permissions(network: Network) -> dict[str, Any]:
    """Who may connect, and (if accounts are given) whose transactions a node passes on."""
    nodes = {"nodes-allowlist": [v.enode for v in network.validators]}
    return nodes | ({"accounts-allowlist": list(network.accounts)} if network.accounts else {})


def node_config(network: Network, validator: Validator) -> dict[str, Any]:
    """Besu's options for one node. Paths are those of its container."""
    by_name = any(not _is_ip(v.host) for v in network.validators)
    return {
        "genesis-file": "/config/genesis.json",
        "node-private-key-file": "/config/key",
        "data-path": "/data",
        # Every old state stays readable: the audit asks what was true at a block of last year.
        "data-storage-format": "FOREST",
        "sync-mode": "FULL",
        "min-gas-price": 0,
        "p2p-host": validator.host.strip("[]"),
        "p2p-port": P2P_PORT,
        "discovery-enabled": False,
        "static-nodes-file": "/config/static-nodes.json",
        "permissions-nodes-config-file-enabled": True,
        "permissions-nodes-config-file": "/config/permissions_config.toml",
        "permissions-accounts-config-file-enabled": bool(network.accounts),
        "permissions-accounts-config-file": "/config/permissions_config.toml",
        "rpc-http-enabled": True,
        # Inside the container; compose publishes it on the loopback interface only.
        "rpc-http-host": "0.0.0.0",  # noqa: S104
        "rpc-http-port": RPC_PORT,
        "rpc-http-api": ["ETH", "NET", "WEB3", "QBFT", "TXPOOL"],
        "host-allowlist": ["localhost", "127.0.0.1"],
        **({"Xdns-enabled": True, "Xdns-update-enabled": True} if by_name else {}),
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _service(network: Network, number: int, folder: str) -> dict[str, Any]:
    validator = network.validators[number]
    service: dict[str, Any] = {
        "image": network.image,
        "restart": "unless-stopped",
        # The key is readable by its owner alone, so the node runs as that user.
        "user": "${BAHEFL_UID:-1000}:${BAHEFL_GID:-1000}",
        "command": ["--config-file=/config/config.toml"],
        "volumes": [f"{folder}:/config:ro", f"{folder}/data:/data"],
        "ports": [f"127.0.0.1:{RPC_PORT + (number if network.trial else 0)}:{RPC_PORT}"],
        "stop_grace_period": "60s",
    }
    if network.trial:
        return service | {"networks": {"ledger": {"ipv4_address": validator.host}}}
    return service | {"ports": [*service["ports"], f"{P2P_PORT}:{P2P_PORT}"]}


def _compose(network: Network, numbers: Sequence[int], folder: str) -> bytes:
    services = {f"node-{n + 1}": _service(network, n, folder.format(n + 1)) for n in numbers}
    subnet = {"networks": {"ledger": {"ipam": {"config": [{"subnet": str(_TRIAL_SUBNET)}]}}}} if network.trial else {}
    return yaml.safe_dump({"services": services, **subnet}, sort_keys=False).encode()


@dataclass(frozen=True, slots=True)
class File:
    """A file to write: its bytes, and its permission bits."""

    content: bytes
    mode: int = 0o644


def files_of(network: Network) -> dict[str, File]:
    """Every file of the network by its path: what is common at the top, and all that one operator needs in its own folder."""
    common = {
        "README.md": File(operators_page(network).encode()),
        "genesis.json": File(_json(genesis(network))),
        "static-nodes.json": File(_json([v.enode for v in network.validators])),
        "permissions_config.toml": File(_toml(permissions(network))),
    }
    files = {name: common[name] for name in ("README.md", "genesis.json")}
    if network.trial:
        files["compose.yaml"] = File(_compose(network, range(len(network.validators)), "./node-{}"))
    for number, validator in enumerate(network.validators):
        own = {
            **common,
            "config.toml": File(_toml(node_config(network, validator))),
            "node.pub": File(b"0x" + validator.public.hex().encode()),
            "address": File(validator.address.encode()),
        }
        if validator.key:
            own["key"] = File(validator.key.secret_file(), 0o600)
        if not network.trial:
            own["compose.yaml"] = File(_compose(network, [number], "."))
        files.update({f"node-{number + 1}/{name}": file for name, file in own.items()})
    return files


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _toml(value: Mapping[str, Any]) -> bytes:
    return tomli_w.dumps(value).encode()


def write_network(network: Network, folder: Path) -> None:
    """Write every file of the network into a new folder.

    Raises:
      SettingsError: the folder is there already (keys in use must never be replaced), or cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
        for number in range(len(network.validators)):
            (folder / f"node-{number + 1}").mkdir(mode=0o700)
            (folder / f"node-{number + 1}" / "data").mkdir(mode=0o700)
        for path, file in files_of(network).items():
            atomic_write(folder / path, file.content, mode=file.mode)
    except FileExistsError:
        raise SettingsError(f"{folder} is there already and is left as it is: its keys stay. Name another folder") from None
    except OSError as error:
        raise SettingsError(f"cannot write the network to {folder}: {error}; name a folder this user may write") from error


def write_node_key(folder: Path) -> str:
    """Make one operator's own node key in a new folder; the public key (hex) to hand to whoever makes the network.

    Raises:
      SettingsError: the folder is there already, or cannot be written.
    """
    key = NodeKey.fresh()
    try:
        folder.mkdir(mode=0o700, parents=True)
        atomic_write(folder / "key", key.secret_file())
        atomic_write(folder / "node.pub", b"0x" + key.public.hex().encode(), mode=0o644)
    except FileExistsError:
        raise SettingsError(f"{folder} is there already and is left as it is; name another folder") from None
    except OSError as error:
        raise SettingsError(f"cannot write a node key to {folder}: {error}; name a folder this user may write") from error
    return f"0x{key.public.hex()}"
