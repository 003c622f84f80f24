"""First contact: create the site's keys, register on the ledger once whitelisted, and say what this site brings."""

from __future__ import annotations

from importlib.metadata import version

from flwr.client import NumPyClient

from bahefl_flwr.records import MemberStatus
from bahefl_flwr.site.opening import initial_model
from bahefl_flwr.site.state import Outcome, Site


def hello(site: Site, client: NumPyClient) -> Outcome:
    """Register if the registrar has whitelisted this site; report address, standing, model and versions.

    Asked again it changes nothing.
    """
    outcome = Outcome()
    status = site.ledger.status(site.address)
    if status is MemberStatus.WHITELISTED:
        outcome.gas = site.ledger.register(site.identity.sealing_public, site.identity.onion.tip).gas_used
        status = MemberStatus.ACTIVE
    model = initial_model(client)
    examples = client.get_properties({}).get("num-examples", 1)
    outcome.facts.update(
        {
            "address": site.address,
            "member": site.me().index if status is not MemberStatus.NONE else -1,
            "status": int(status),
            "model": model.digest().hex(),
            "parameters": model.parameters,
            "num-examples": max(1, int(examples)),
            "versions": " ".join(f"{name} {version(name)}" for name in ("bahefl-flwr", "flwr", "tenseal")),
        }
    )
    return outcome
