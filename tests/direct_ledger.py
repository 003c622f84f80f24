"""The embedded ledger without a node: the same contract, chain and client, but neither HTTP nor estimates nor other senders.

For tests of what the contract does; how transactions get there is tested with the node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_canonical_address, to_checksum_address
from web3 import Web3
from web3.contract.contract import ContractFunction

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.connection import Receipt, decode_error
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger, artifact
from bahefl_flwr.ledger.database import ChainDatabase
from bahefl_flwr.ledger.evm import GAS_LIMIT, Call
from ledger_sites import ADMIN, CHAIN_ID, Clock, RunningChain, Sites, SixSites

_GAS = 8_000_000


_START_S = 1_800_000_000


class StandingClock(Clock):
    """Stands still unless put forward, so that block hashes and what is drawn with them are the same in every run."""

    def __call__(self) -> float:
        return _START_S + self._ahead


class DirectConnection:
    """What FederationLedger needs of a Connection; every transaction makes a block."""

    def __init__(self, chain: Chain, account: LocalAccount) -> None:
        self.chain_id = chain.chain_id
        self.web3 = Web3()
        self._chain, self._account = chain, account
        self._nonce = chain.state_at(None).get_nonce(to_canonical_address(account.address))

    def call(self, function: ContractFunction) -> Any:
        """The result of a view function, as of a transaction sent now."""
        outcome = self._chain.call(self._message(function), None)
        assert not outcome.error, outcome
        types = [collapse_if_tuple(output) for output in function.abi["outputs"]]
        return self.web3.codec.decode(types, outcome.output)[0]

    def send(self, function: ContractFunction) -> Receipt:
        """Execute a transaction.

        Raises:
          TransactionReverted: the contract refused it.
        """
        fees = {"gas": _GAS, "maxFeePerGas": 0, "maxPriorityFeePerGas": 0}
        transaction = {"nonce": self._nonce, "chainId": self.chain_id, "to": function.address, "value": 0, **fees}
        signed = self._account.sign_transaction({**transaction, "data": function._encode_transaction_data()})
        self._nonce += 1
        self._chain.send(signed.raw_transaction)
        done = self._chain.pending_transactions()[-1]
        self._chain.seal()
        if not done.status:
            data = self._chain.call(self._message(function), None).output
            reason, text = decode_error(function.contract_abi, "0x" + data.hex())
            raise TransactionReverted(text or f"no reason, {done.gas_used} gas", reason=reason)
        return Receipt(transaction=signed.hash.to_0x_hex(), block_number=done.block, gas_used=done.gas_used)

    def _message(self, function: ContractFunction) -> Call:
        sender, to = (to_canonical_address(a) for a in (self._account.address, function.address))
        return Call(sender=sender, to=to, data=bytes.fromhex(function._encode_transaction_data()[2:]), value=0, gas=GAS_LIMIT)


class DirectSites(Sites):
    """The sites of a chain whose database lies in a file, on a new contract if no address is given; `close` it in the end."""

    def __init__(self, database: Path, address: str | ContractConfig) -> None:
        clock = StandingClock()
        self._database = ChainDatabase(database, CHAIN_ID)
        self._direct = Chain(self._database, CHAIN_ID, clock=clock)
        if isinstance(address, ContractConfig):
            address = self._deployed(address)
        super().__init__(RunningChain("", clock), address)

    def _deployed(self, config: ContractConfig) -> str:
        factory = Web3().eth.contract(abi=artifact()["abi"], bytecode=artifact()["bytecode"])
        code = factory.constructor(ADMIN.address, config.as_tuple()).data_in_transaction
        transaction = {"nonce": 0, "chainId": CHAIN_ID, "gas": GAS_LIMIT, "maxFeePerGas": 0, "maxPriorityFeePerGas": 0}
        self._direct.send(ADMIN.sign_transaction({**transaction, "value": 0, "data": code}).raw_transaction)
        contract = self._direct.pending_transactions()[-1].contract
        self._direct.seal()
        assert contract is not None
        return to_checksum_address(contract)

    def ledger_of(self, account: LocalAccount) -> FederationLedger:
        """The contract as an account sees it."""
        return FederationLedger(DirectConnection(self._direct, account), self._address)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class DirectSixSites(DirectSites, SixSites):
    """The same with six of them."""
