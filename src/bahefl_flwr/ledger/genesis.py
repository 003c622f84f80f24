"""A Besu QBFT network as files: genesis block, permissions, one folder for each operator.

Pure but for `write_*`: from the network of network.py to file contents. Nothing here talks to a node.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlp
import tomli_w
import yaml
from eth_utils.address import to_checksum_address

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.ledger.network import P2P_PORT, TRIAL_SUBNET, Network, NodeKey, Validator
from bahefl_flwr.ledger.operators_page import operators_page

RPC_PORT = 8545

# Every QBFT block has this: "ctical byzantine fault tolerance" as bytes.
_MIX_HASH = "0x63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365"
_VANITY = bytes(32)
_GAS_LIMIT = 30_000_000
_EPOCH_BLOCKS = 30_000


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
    subnet = {"networks": {"ledger": {"ipam": {"config": [{"subnet": str(TRIAL_SUBNET)}]}}}} if network.trial else {}
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
