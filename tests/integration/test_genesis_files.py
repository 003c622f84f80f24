"""Claims about `bahefl ledger`: the command, and the files it writes in the hands of a real node of another make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anvil_node import AnvilNode
from bahefl_flwr.console import main
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.genesis import extra_data, validators_in
from ledger_sites import ADMIN, CONFIG, running_chain

ARGUMENTS = ("ledger", "genesis", "--chain-id", "20260")


def test_the_command_writes_the_network_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The validators that it prints are those of the first block."""
    assert main([*ARGUMENTS, "--validators", "4", "--output", str(tmp_path / "net"), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "net" / "genesis.json").read_text())
    assert sorted(v["address"] for v in printed["validators"]) == sorted(validators_in(written["extraData"]))
    assert (printed["chain_id"], printed["tolerated_faults"]) == (20260, 1)


def test_operators_make_a_network_of_their_own_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each makes a key and hands over what is printed; the network's folder then holds no secret."""
    keys = []
    for i in range(4):
        assert main(["ledger", "node-key", str(tmp_path / f"operator-{i}")]) == 0
        keys += ["--public-key", capsys.readouterr().out.strip()]
    assert main([*ARGUMENTS, *keys, "--output", str(tmp_path / "net")]) == 0
    assert not list((tmp_path / "net").glob("node-*/key"))


def test_too_few_validators_end_the_command_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the reason; --lab says that it is meant."""
    assert main([*ARGUMENTS, "--validators", "1", "--output", str(tmp_path / "net")]) == 2
    assert "tolerate no fault" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()
    assert main([*ARGUMENTS, "--validators", "1", "--lab", "--output", str(tmp_path / "net")]) == 0


def test_a_network_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: name another folder."""
    command = [*ARGUMENTS, "--validators", "4", "--output", str(tmp_path / "net")]
    assert (main(command), main(command)) == (0, 2)
    assert "is left as it is" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[*ARGUMENTS, "--validators", "4", "--output"], ["ledger", "node-key"]])
def test_a_folder_that_cannot_be_made_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Exit code 2 and what to do; not a matter of keys."""
    (tmp_path / "file").touch()
    assert main([*command, str(tmp_path / "file" / "new")]) == 2
    assert "name a folder this user may write" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "missing"), [(["--output", "net"], "--chain-id"), (["--chain-id", "7"], "--output")])
def test_what_is_needed_is_asked_for(capsys: pytest.CaptureFixture[str], given: list[str], missing: str) -> None:
    """Exit code 2 and the option's name."""
    assert main(["ledger", "genesis", "--validators", "4", *given]) == 2
    assert f"Missing option '{missing}'" in capsys.readouterr().err


def test_a_node_of_another_make_reads_our_first_block(tmp_path: Path) -> None:
    """anvil starts from the genesis file, at its time and with its free gas, and the contract is deployed."""
    assert main([*ARGUMENTS, "--validators", "4", "--output", str(tmp_path / "net")]) == 0
    with AnvilNode("--init", str(tmp_path / "net" / "genesis.json")) as node:
        first = node.ask("eth_getBlockByNumber", "0x0", False)
        assert (first["timestamp"], first["baseFeePerGas"]) == ("0x0", "0x0")
        ledger = FederationLedger.deploy(Connection(node.url, 20260, account=ADMIN), CONFIG)
        assert ledger.view().round.number == 0


def test_the_client_reads_blocks_with_the_extra_data_of_our_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proof-of-authority headers, longer than Ethereum's own: the node serves them, the client reads and sends as ever."""
    extra = bytes.fromhex(extra_data([f"0x{i:040x}" for i in range(4)])[2:])
    ordinary = Chain.pending_header
    monkeypatch.setattr(Chain, "pending_header", lambda self: ordinary(self).copy(extra_data=extra))
    with running_chain(tmp_path / "chain.sqlite") as chain:
        connection = Connection(chain.url, 20260, account=ADMIN)
        ledger = FederationLedger.deploy(connection, CONFIG)
        assert connection.web3.eth.get_block("latest")["proofOfAuthorityData"] == extra
        ledger.whitelist([ledger.address], [1])
