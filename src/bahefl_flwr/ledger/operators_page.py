"""The README of a generated Besu network: what each operator does, in order. The text is operators_page.md."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bahefl_flwr.ledger.network import Network

_KEYS_HERE = """\
Whoever made this folder has seen all node keys. For a trial that does not matter. Between hospitals it does: let every
operator run `bahefl ledger node-key DIR`, collect the public keys, and make the network with `--public-key`. If you keep these
keys: hand each `node-N/` to its operator over a channel you trust, then delete it here."""
_KEYS_ELSEWHERE = """\
The keys were made by the operators. Each copies its `key` into its `node-N/` folder (mode 0600); `node.pub` says which folder
is whose."""
_UP = "    BAHEFL_UID=$(id -u) BAHEFL_GID=$(id -g) docker compose up -d"
_START_TRIAL = f"""\
All nodes on this machine:

{_UP}"""
_START_APART = f"""\
Every operator, in its own `node-N/` folder:

{_UP}

Without containers: Besu of the version in `compose.yaml`, `besu --config-file=config.toml` with the paths adapted."""


def operators_page(network: Network) -> str:
    """The README of a network, as Markdown."""
    count, tolerated = len(network.validators), network.tolerated
    made_here = any(v.key for v in network.validators)
    text = files("bahefl_flwr.ledger").joinpath("operators_page.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        chain_id=network.chain_id,
        count=count,
        period=network.block_period_s,
        tolerance=_tolerance(tolerated),
        table="\n".join(f"| node-{n} | {v.host} | `{v.address}` |" for n, v in enumerate(network.validators, start=1)),
        keys_title="The node keys" if made_here else "Your key",
        keys=_KEYS_HERE if made_here else _KEYS_ELSEWHERE,
        start=_START_TRIAL if network.trial else _START_APART,
        accounts=(
            "It also names the only accounts that may send transactions; a further site's goes into the files of all nodes."
            if network.accounts
            else "Accounts are not restricted here: the contract's own whitelist decides who may act."
        ),
        stall=f"fewer than {count - tolerated} of {count} validators run and see each other",
    )


def _tolerance(tolerated: int) -> str:
    if not tolerated:
        return "For trying things out only: it tolerates no fault."
    return f"It goes on while at most {tolerated} of them {'is' if tolerated == 1 else 'are'} down or lying."
