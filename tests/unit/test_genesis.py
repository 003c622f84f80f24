"""Claims about the generated Besu network: all that can be checked without running Besu."""

from __future__ import annotations

import json
import pickle
import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.ledger.genesis import extra_data, files_of, genesis, validators_in, write_network, write_node_key
from bahefl_flwr.ledger.network import Network, NodeKey, plan

# Extra data from the tests of another QBFT implementation (GoQuorum), and the validators it names.
QUORUMS = (
    "0xf87aa00000000000000000000000000000000000000000000000000000000000000000f8549444add0ec310f115a0e603b2d7db9f067778eaf8a94"
    "294fc7e8f22b3bcdcf955dd7ff3ba2ed833f8212946beaaed781d2d2ab6350f5c4566a2c6eaac407a6948be76812f765c24641ec63dc2852b378aba2"
    "b440c080c0"
)
VALIDATORS = (
    "0x44add0ec310f115a0e603b2d7db9f067778eaf8a", "0x294fc7e8f22b3bcdcf955dd7ff3ba2ed833f8212",
    "0x6beaaed781d2d2ab6350f5c4566a2c6eaac407a6", "0x8be76812f765c24641ec63dc2852b378aba2b440",
)  # fmt: skip
# Besu's documented development accounts: key and address.
KNOWN_KEYS = {
    "8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63": "0xFE3B557E8Fb62b89F4916B721be55cEb828dBd73",
    "c87509a1c067bbde78beb793e6fa76530b6382a4c0241e5e4a9ec0a0f44dc0d3": "0x627306090abaB3A6e1400e9345bC60c78a8BEf57",
}
HOSTS = ("10.0.0.1", "node.b.example", "192.168.7.3", "fd00::4")


@pytest.fixture(scope="module")
def trial() -> Network:
    return plan(chain_id=7, validators=4)


@pytest.fixture(scope="module")
def apart() -> Network:
    return plan(chain_id=7, validators=4, hosts=HOSTS, accounts=["0x" + "ab" * 20], block_period_s=5)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_another_implementations_extra_data_is_read() -> None:
    """The validators come out as they went in."""
    assert tuple(a.lower() for a in validators_in(QUORUMS)) == VALIDATORS


def test_our_extra_data_is_another_implementations_byte_for_byte() -> None:
    """The same validators give the same bytes, but for their order: ours is ascending, as Besu wants it in later blocks."""
    in_their_order = "".join(f"94{a[2:]}" for a in VALIDATORS)
    in_ours = "".join(f"94{a[2:]}" for a in sorted(VALIDATORS))
    assert extra_data(VALIDATORS) == QUORUMS.replace(in_their_order, in_ours)


@given(st.lists(st.binary(min_size=20, max_size=20), max_size=30, unique=True))
def test_extra_data_round_trips(addresses: list[bytes]) -> None:
    """Any set of validators, in ascending order."""
    assert [v.lower() for v in validators_in(extra_data([a.hex() for a in addresses]))] == sorted(
        f"0x{a.hex()}" for a in addresses
    )


@given(st.binary(max_size=200))
def test_what_is_no_extra_data_is_refused(data: bytes) -> None:
    """Bytes at random are an error of ours, whatever they are."""
    with pytest.raises(SettingsError, match="no QBFT extra data"):
        validators_in("0x" + data.hex())


@pytest.mark.parametrize(("secret", "address"), KNOWN_KEYS.items())
def test_a_validators_address_is_that_of_its_node_key(secret: str, address: str) -> None:
    """Besu's documented keys give Besu's documented addresses."""
    key = NodeKey(bytes.fromhex(secret))
    network = plan(chain_id=1, public_keys=[key.public.hex()], lab=True)
    assert network.validators[0].address == address
    assert key.secret_file() == f"0x{secret}".encode()


def test_every_file_of_a_validator_tells_the_same_story(apart: Network) -> None:
    """Key, public key, address, enode URL, extra data, static nodes and permissions agree with each other."""
    files = files_of(apart)
    named = validators_in(json.loads(files["genesis.json"].content)["extraData"])
    for i, v in enumerate(apart.validators, start=1):
        assert Account.from_key(files[f"node-{i}/key"].content.decode()).address == v.address
        assert files[f"node-{i}/address"].content.decode() == v.address
        assert v.address in named
        assert re.fullmatch(rf"enode://{v.public.hex()}@\S+:30303", v.enode)
        assert files[f"node-{i}/node.pub"].content.decode() == f"0x{v.public.hex()}"
        assert v.enode in json.loads(files[f"node-{i}/static-nodes.json"].content)
        assert v.enode in tomllib.loads(files[f"node-{i}/permissions_config.toml"].content.decode())["nodes-allowlist"]
        assert tomllib.loads(files[f"node-{i}/config.toml"].content.decode())["p2p-host"] == HOSTS[i - 1]
    assert len(named) == 4


def test_the_genesis_block_is_what_besu_and_the_contract_need(apart: Network) -> None:
    """Every item with its type: London and nothing later, free gas, QBFT's constants, and room for the contract's deployment."""
    found = genesis(apart)
    assert found["config"] == {
        "chainId": 7,
        "londonBlock": 0,
        "zeroBaseFee": True,
        "qbft": {"epochlength": 30000, "blockperiodseconds": 5, "requesttimeoutseconds": 10},
    }
    assert bytes.fromhex(found["mixHash"][2:]) == b"ctical byzantine fault tolerance"
    assert (int(found["gasLimit"], 16), found["difficulty"], found["baseFeePerGas"], found["alloc"]) == (
        30_000_000,
        "0x1",
        "0x0",
        {},
    )
    hexadecimal = ("nonce", "timestamp", "extraData", "gasLimit", "difficulty", "mixHash", "coinbase", "baseFeePerGas")
    assert all(re.fullmatch(r"0x[0-9a-f]+", found[name]) for name in hexadecimal)


def test_gas_is_free_and_no_option_contradicts_it(apart: Network) -> None:
    """Besu refuses to start with zeroBaseFee and a price bump; it asks no minimum price."""
    config = tomllib.loads(files_of(apart)["node-1/config.toml"].content.decode())
    assert config["min-gas-price"] == 0
    assert "tx-pool-price-bump" not in config


def test_names_instead_of_addresses_switch_name_look_up_on(apart: Network, trial: Network) -> None:
    """One host name among the validators suffices; addresses alone need none."""
    assert "Xdns-enabled" in tomllib.loads(files_of(apart)["node-1/config.toml"].content.decode())
    assert "Xdns-enabled" not in tomllib.loads(files_of(trial)["node-1/config.toml"].content.decode())


def test_accounts_are_restricted_only_if_some_are_given(apart: Network, trial: Network) -> None:
    """An empty list would let nobody send at all."""
    restricted = [tomllib.loads(files_of(n)["node-1/config.toml"].content.decode()) for n in (apart, trial)]
    assert [c["permissions-accounts-config-file-enabled"] for c in restricted] == [True, False]
    lists = [tomllib.loads(files_of(n)["node-1/permissions_config.toml"].content.decode()) for n in (apart, trial)]
    assert lists[0]["accounts-allowlist"] == [apart.accounts[0]] and "accounts-allowlist" not in lists[1]


def test_json_rpc_is_published_on_the_loopback_interface_only(apart: Network, trial: Network) -> None:
    """Whoever reaches the port may use the node."""
    together = yaml.safe_load(files_of(trial)["compose.yaml"].content)["services"]
    alone = yaml.safe_load(files_of(apart)["node-2/compose.yaml"].content)["services"]
    assert [s["ports"] for s in together.values()] == [[f"127.0.0.1:{8545 + i}:8545"] for i in range(4)]
    assert alone["node-2"]["ports"] == ["127.0.0.1:8545:8545", "30303:30303"]


def test_a_trial_runs_where_its_enode_urls_say(trial: Network) -> None:
    """Each container has the address under which the others dial it, inside the network's range."""
    found = yaml.safe_load(files_of(trial)["compose.yaml"].content)
    addresses = [s["networks"]["ledger"]["ipv4_address"] for s in found["services"].values()]
    assert addresses == [v.host for v in trial.validators]
    assert found["networks"]["ledger"]["ipam"]["config"] == [{"subnet": "172.28.62.0/24"}]


def test_the_page_names_every_node_and_how_many_may_fail(apart: Network) -> None:
    """Nothing is left to fill in."""
    page = files_of(apart)["README.md"].content.decode()
    assert all(v.address in page for v in apart.validators)
    assert "at most 1 of them is down" in page and "fewer than 3 of 4 validators" in page
    assert "{" not in page.replace('{"jsonrpc"', "")


@pytest.mark.parametrize(("count", "tolerated"), [(4, 1), (6, 1), (7, 2), (10, 3)])
def test_how_many_validators_may_fail(count: int, tolerated: int) -> None:
    """More than two thirds must be right."""
    assert plan(chain_id=1, validators=count).tolerated == tolerated


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_validators_are_refused_with_the_reason(count: int) -> None:
    """Below four a single fault stops the chain; a lab may have it so, and the page says it."""
    with pytest.raises(SettingsError, match=rf"{count} validators tolerate no fault.*Give at least 4.*--lab"):
        plan(chain_id=1, validators=count)
    page = files_of(plan(chain_id=1, validators=count, lab=True))["README.md"].content.decode()
    assert "tolerates no fault" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validators": 0}, "0 validators: give 1 to 100"),
        ({"validators": 101}, "101 validators"),
        ({"validators": 4, "hosts": ["a"]}, "4 validators, but 1 hosts"),
        ({"validators": 4, "hosts": ["a", "b", "c", "d e"]}, "'d e' is no IP address or host name"),
        ({"validators": 4, "hosts": ["a", "b", "c", "10.0.0.256"]}, "'10.0.0.256' is no IP address"),
        ({"validators": 2, "hosts": ["b.example", "B.example"], "lab": True}, "b.example is the host of two validators"),
        ({"validators": 2, "hosts": ["10.0.0.1", "localhost"], "lab": True}, "localhost cannot be reached from another machine"),
        ({"validators": 2, "hosts": ["127.0.0.1", "127.0.0.2"], "lab": True}, "127.0.0.1 cannot be reached"),
        ({"validators": 2, "hosts": ["10.0.0.1", "0:0::1"], "lab": True}, "[::1] cannot be reached"),
        ({"validators": 4, "accounts": ["0x12"]}, "'0x12' is no account address"),
        ({"public_keys": ["00"] * 4}, "is no node's public key"),
        ({"public_keys": ["ff" * 64] * 4}, "is no node's public key"),
        ({"validators": 5, "public_keys": ["ff" * 64] * 4}, "5 validators, but 4 public keys"),
        ({"public_keys": [NodeKey(bytes([7] * 32)).public.hex()] * 4}, "same public key"),
        ({"validators": 4, "chain_id": 0}, "must be at least 1"),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_do(arguments: dict[str, object], message: str) -> None:
    """Before a key is made or a file written."""
    with pytest.raises(SettingsError, match=re.escape(message)):
        plan(**{"chain_id": 1, **arguments})


def test_keys_are_readable_by_their_owner_alone(trial: Network, tmp_path: Path) -> None:
    """Keys 0600, folders with keys 0700; what every node must read is readable."""
    write_network(trial, tmp_path / "net")
    keys = list((tmp_path / "net").glob("node-*/key"))
    assert len(keys) == 4 and {mode(key) for key in keys} == {0o600}
    assert {mode(folder) for folder in ((tmp_path / "net"), *(tmp_path / "net").glob("node-*"))} == {0o700}
    assert mode(tmp_path / "net" / "genesis.json") == 0o644


def test_a_network_is_never_written_over(trial: Network, tmp_path: Path) -> None:
    """Keys in use stay what they are."""
    write_network(trial, tmp_path / "net")
    before = {p: p.read_bytes() for p in (tmp_path / "net").rglob("*") if p.is_file()}
    with pytest.raises(SettingsError, match="is there already and is left as it is"):
        write_network(plan(chain_id=8, validators=4), tmp_path / "net")
    assert {p: p.read_bytes() for p in (tmp_path / "net").rglob("*") if p.is_file()} == before


def test_every_operator_gets_the_page(apart: Network) -> None:
    """Whoever receives a node's folder has its instructions too."""
    files = files_of(apart)
    assert {files[f"node-{i}/README.md"].content for i in range(1, 5)} == {files["README.md"].content}


def test_a_single_validator_may_be_at_loopback() -> None:
    """A lab of one node has no peer that dials it."""
    assert plan(chain_id=1, validators=1, hosts=["127.0.0.1"], lab=True).validators[0].host == "127.0.0.1"


def test_operators_who_make_their_own_keys_keep_them(tmp_path: Path) -> None:
    """The network is made of public keys; no secret is in its files."""
    public = [write_node_key(tmp_path / f"operator-{i}") for i in range(4)]
    network = plan(chain_id=1, public_keys=public, hosts=HOSTS)
    assert not [path for path in files_of(network) if path.endswith("/key")]
    assert Account.from_key((tmp_path / "operator-2" / "key").read_text()).address == network.validators[2].address
    assert mode(tmp_path / "operator-2" / "key") == 0o600


def test_a_node_key_does_not_print_or_travel() -> None:
    """repr is redacted, pickling refused."""
    key = NodeKey(bytes([7] * 32))
    assert repr(key) == "<NodeKey redacted>"
    with pytest.raises(TypeError):
        pickle.dumps(key)
