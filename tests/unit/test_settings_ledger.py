"""Claims about the settings of the ledger: what contradicts itself is refused before anything starts."""

from __future__ import annotations

import pytest

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.federation import chain_policy
from bahefl_flwr.ledger.policy import GWEI, ChainPolicy, Fees
from bahefl_flwr.settings import compose

NODE = ("ledger=rpc", "ledger.url=http://127.0.0.1:8545")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("ledger.url=http://127.0.0.1:8545",), "are for a chain that runs already: add ledger=rpc"),
        (("ledger.confirmations=1",), "are for a chain that runs already"),
        (("ledger=rpc", "ledger.url=ws://node"), "needs ledger.url=http(s)://..., got 'ws://node'"),
        (("ledger=rpc", "ledger.url=https://me:word@node/rpc"), "holds a user name or password"),
        ((*NODE, "ledger.administrator=''"), "needs ledger.administrator=<folder>"),
        ((*NODE, "ledger.contract=0x12"), "ledger.contract: String should match"),
        ((*NODE, "ledger.confirmations=101"), "ledger.confirmations: Input should be less than or equal to 100"),
        ((*NODE, "ledger.priority_fee_gwei=2", "ledger.max_fee_gwei=1"), "priority_fee_gwei=2 exceeds ledger.max_fee_gwei=1"),
        ((*NODE, "ledger.timeout_s=0"), "ledger.timeout_s: Input should be greater than 0"),
    ],
)
def test_a_contradiction_is_refused_with_what_to_do(overrides: tuple[str, ...], message: str) -> None:
    """The message names the setting and the way out."""
    with pytest.raises(SettingsError) as refused:
        compose(overrides)
    assert message in str(refused.value)


def test_a_refused_url_is_not_repeated() -> None:
    """A password in it must not reach a log."""
    with pytest.raises(SettingsError) as refused:
        compose(["ledger=rpc", "ledger.url=https://me:word@node/rpc"])
    assert "word@" not in str(refused.value)


def test_a_foreign_chain_waits_for_a_block_on_top_the_embedded_one_does_not() -> None:
    """One confirmation unless said otherwise; none where nobody else makes blocks."""
    assert (chain_policy(compose(NODE)).confirmations, chain_policy(compose()).confirmations) == (1, 0)


def test_what_a_site_pays_is_its_own_business_what_counts_is_not() -> None:
    """The digest that all sites share covers the confirmations, and neither fees nor endpoints."""
    shared = compose(NODE).digest()
    assert compose([*NODE, "ledger.max_fee_gwei=3", "ledger.url=http://other", "ledger.patience_s=9"]).digest() == shared
    assert compose([*NODE, "ledger.confirmations=2"]).digest() != shared


def test_the_offer_leaves_room_and_stays_below_the_cap() -> None:
    """Twice the base fee and the tip, at most the cap."""
    policy = ChainPolicy(max_fee_gwei=5, priority_fee_gwei=1)
    assert Fees.first(policy, GWEI) == Fees(3 * GWEI, GWEI)
    assert Fees.first(policy, 4 * GWEI) == Fees(5 * GWEI, GWEI)


def test_a_raise_is_one_that_nodes_accept_or_none() -> None:
    """An eighth more on both fees, or twice the present base fee; nothing where the cap or free gas leaves no room."""
    policy = ChainPolicy(max_fee_gwei=5)
    assert Fees(800, 0).raised(policy, 100) == Fees(900, 1)
    assert Fees(800, 8).raised(policy, 1000) == Fees(2009, 9)
    assert Fees(5 * GWEI, 0).raised(policy, GWEI) is None
    assert Fees(800, 0).raised(policy, 6 * GWEI) is None
    assert Fees(0, 0).raised(ChainPolicy(), 0) is None
