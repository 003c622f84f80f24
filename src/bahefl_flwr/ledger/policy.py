"""How an account deals with its chain: when a block counts, what it pays for gas, how long it waits. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from bahefl_flwr.errors import LedgerError

GWEI = 10**9
# geth, anvil and Besu replace a waiting transaction only for 10 percent more; an eighth leaves room for rounding.
_BUMP_DIVISOR = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPolicy:
    """An account's terms with its chain (docs/adr/0006).

    Attributes:
      confirmations: blocks that must lie on top of a block before it counts. 0 where a block is final at once (Besu QBFT, the
        embedded ledger). With more, the chain must make blocks by itself: an idle one would never confirm anything.
      max_fee_gwei: most this account pays for a unit of gas, tip included; 0 where gas is free.
      priority_fee_gwei: tip for the block's maker, on top of the base fee.
      timeout_s: longest wait for one answer of the node.
      patience_s: longest wait for a node that does not answer, and for a chain that makes no block.
    """

    confirmations: int = 0
    max_fee_gwei: float = 0.0
    priority_fee_gwei: float = 0.0
    timeout_s: float = 30.0
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Fees:
    """EIP-1559 fees of one transaction, in wei per unit of gas."""

    most: int
    tip: int

    @classmethod
    def first(cls, policy: ChainPolicy, base_fee: int) -> Self:
        """What to offer at a base fee: room for it to double, never above the policy's cap.

        Raises:
          LedgerError: the chain asks for more than the policy allows.
        """
        cap = int(policy.max_fee_gwei * GWEI)
        if base_fee > cap:
            allowed = f"ledger.max_fee_gwei={policy.max_fee_gwei:g} allows less" if cap else "this run expects free gas"
            raise LedgerError(
                f"the chain asks {base_fee / GWEI:g} gwei for a unit of gas, {allowed}: set ledger.max_fee_gwei and fund the "
                "accounts, or use a chain with zeroBaseFee"
            )
        tip = min(int(policy.priority_fee_gwei * GWEI), cap - base_fee)
        return cls(most=min(cap, 2 * base_fee + tip), tip=tip)

    def raised(self, policy: ChainPolicy, base_fee: int) -> Self | None:
        """Enough more that a node replaces the waiting transaction; None if the cap does not leave room, or gas is free."""
        cap = int(policy.max_fee_gwei * GWEI)
        tip = _raised(self.tip)
        # A base fee that has overtaken the offer is the usual reason to be stuck: an eighth more might be too little again.
        most = min(cap, max(_raised(self.most), 2 * base_fee + tip))
        return replace(self, most=most, tip=min(tip, most)) if most >= max(base_fee, _raised(self.most)) else None


def _raised(wei: int) -> int:
    # geth wants both fees raised, so a tip of 0 becomes 1.
    return wei + max(1, -(-wei // _BUMP_DIVISOR))
