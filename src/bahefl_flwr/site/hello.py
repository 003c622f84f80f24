"""First contact: create the site's keys, register on the ledger once whitelisted, and say what this site brings."""

from __future__ import annotations

from importlib.metadata import version

from flwr.client import NumPyClient

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.records import Member, MemberStatus
from bahefl_flwr.site.history import first_memory, keep_model
from bahefl_flwr.site.model import MODEL_FILE
from bahefl_flwr.site.numpy_client import declared_examples, initial_model
from bahefl_flwr.site.state import Outcome, Site


def hello(site: Site, client: NumPyClient) -> Outcome:
    """Register if the registrar has whitelisted this site; report address, standing, model and versions.

    Asked again it changes nothing.
    """
    outcome = Outcome()
    member = site.ledger.member(site.address) or _register(site, outcome)
    model = initial_model(client)
    if not (site.folder / MODEL_FILE).exists():
        # A site that has not trained yet must know the model's size to verify and to help open.
        keep_model(site.folder, model, first_memory(model))
    examples = declared_examples(client)
    outcome.facts.update(
        {
            "address": site.address,
            "binding": site.binding.hex(),
            "member": member.index if member else -1,
            "status": int(member.status if member else MemberStatus.NONE),
            "model": model.digest().hex(),
            "parameters": model.parameters,
            # A site that names no number weighs one; the driver says so.
            "num-examples": examples or 1,
            "names-examples": examples is not None,
            "versions": " ".join(f"{name} {version(name)}" for name in ("bahefl-flwr", "flwr", "tenseal")),
        }
    )
    return outcome


def _register(site: Site, outcome: Outcome) -> Member | None:
    """Enter the whitelisted site into the roster; None where the registrar has not whitelisted it."""
    try:
        outcome.gas += site.ledger.register(site.identity.sealing_public, site.identity.onion.tip).gas_used
    except TransactionReverted as error:
        if error.reason == "NotWhitelisted":
            return None
        raise
    return site.ledger.member(site.address)
