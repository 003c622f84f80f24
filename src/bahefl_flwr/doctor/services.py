"""The ledger and the store, as this machine reaches them. Nothing is sent to the ledger; a store gets one constant object."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

from bahefl_flwr.doctor.finding import Finding, failure, ok, warning
from bahefl_flwr.doctor.machine import clock_of_chain
from bahefl_flwr.doctor.protection import key_mode_on_ledger
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.federation import LedgerAddress, chain_policy, contract_config
from bahefl_flwr.identity import Identity
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import ContractConfig, FederationLedger
from bahefl_flwr.ledger.policy import GWEI, Fees
from bahefl_flwr.records import LedgerView, MemberStatus, ObjectKind
from bahefl_flwr.settings import Settings
from bahefl_flwr.site.state import task_params
from bahefl_flwr.store.dag_cbor import DAG_CBOR, RAW, Link
from bahefl_flwr.store.manifest import Manifest, manifest_for
from bahefl_flwr.stores import greet, open_store

_ANSWER_S = 5.0
_STALE_BLOCKS = 20
# The same bytes from everybody, so that a store holds them once, however often it is looked at.
_PROBE = b"bahefl doctor: this object may be deleted at any time\n"


def ledger(settings: Settings, where: LedgerAddress, account: str = "", *, compare: bool = True) -> Iterator[Finding]:
    """The chain, its contract, the keys it names and this site's standing.

    Args:
      where: `contract` may be empty, before it is deployed. account: this site's address, "" where it has none.
      compare: whether `settings` are those of the run, and the contract must have been deployed with them.

    Raises:
      LedgerError: it does not answer, or is not what it should be.
    """
    policy = replace(chain_policy(settings), timeout_s=_ANSWER_S, patience_s=_ANSWER_S)
    connection = Connection(where.url, where.chain_id, policy=policy)
    connection.check()
    pulse = connection.pulse()
    yield ok("ledger", f"{where.url} is chain {where.chain_id}, block {pulse.number}")
    yield clock_of_chain(pulse.made_s, time.time())
    yield _blocks(pulse.period_s, time.time() - pulse.made_s, settings)
    yield _gas(connection.base_fee(), settings)
    if not where.contract:
        yield warning("contract", "none is named yet", "the first run deploys it; then name it in ledger.contract at every site")
        return
    yield from _contract(FederationLedger.attach(connection, where.contract), settings, account, compare=compare)


def _blocks(period_s: int, age_s: float, settings: Settings) -> Finding:
    confirmations = settings.ledger.confirmations
    got = f"newest block {age_s:.0f} s old, {period_s} s after the one before; ledger.confirmations={confirmations}"
    if confirmations and period_s and age_s > _STALE_BLOCKS * period_s:
        return warning("blocks", got, "a chain that makes no blocks confirms nothing: look at its validators")
    return ok("blocks", got)


def _gas(base_fee: int, settings: Settings) -> Finding:
    try:
        Fees.first(chain_policy(settings), base_fee)
    except BaheflError as error:
        return failure("gas", str(error), "")
    return ok("gas", f"{base_fee / GWEI:g} gwei a unit, at most {settings.ledger.max_fee_gwei:g} are paid")


def _contract(contract: FederationLedger, settings: Settings, account: str, *, compare: bool) -> Iterator[Finding]:
    view = contract.view()
    task = f"task {view.task.number} open, round {view.round.number}" if view.task.open else "no task open"
    yield ok("contract", f"{contract.address} is this version's; {task}; {view.active.bit_count()} active members")
    if compare:
        yield from _as_settings_say(contract, view, settings)
    yield from key_mode_on_ledger(view.epoch, task_params(settings).threshold if compare else 1)
    if account:
        yield _standing(contract.status(account), account)


def _as_settings_say(contract: FederationLedger, view: LedgerView, settings: Settings) -> Iterator[Finding]:
    found, wanted = contract.config(), contract_config(settings)
    differing = [
        f"{f.name} is {getattr(found, f.name)}, here {getattr(wanted, f.name)}"
        for f in fields(ContractConfig)
        if getattr(found, f.name) != getattr(wanted, f.name)
    ]
    if differing:
        yield failure("contract", "deployed with other settings: " + "; ".join(differing), "agree on one set with all sites")
    if view.active.bit_count() > settings.federation.sites:
        yield failure(
            "contract",
            f"{view.active.bit_count()} active members, federation.sites={settings.federation.sites}",
            "noise is sized for federation.sites: raise it at every site, or have members that left suspended",
        )


def _standing(status: MemberStatus, account: str) -> Finding:
    advice = {
        MemberStatus.NONE: "give the address to the registrar, who whitelists it",
        MemberStatus.SUSPENDED: "ask the registrar why, and to reinstate it",
    }
    if status in advice:
        return failure("member", f"{account} is {status.name.lower()} on the ledger", advice[status])
    return ok("member", f"{account} is {status.name.lower()} on the ledger")


def store(settings: Settings, run: Path, identity: Identity | None) -> Iterator[Finding]:
    """Whether objects can be put and read.

    Args:
      run: folder that a relative `store.path` starts from, existing or not. identity: of a site; without one only the greeting of
        a served store can be asked for.

    Raises:
      StoreError, StoreUnavailable, SettingsError: it cannot be used.
    """
    kind = settings.store
    if kind.kind == "local" and not (run / kind.path).is_dir():
        yield ok("store", f"the folder {run / kind.path} is made with the run")
        return
    if kind.kind == "http":
        greet(kind)
        if identity is None:
            yield ok("store", f"{kind.url} answers; rights are a member's, and were not tried (--site, --identity)")
            return
    impatient = kind.model_copy(
        update={"timeout_s": min(kind.timeout_s, _ANSWER_S), "patience_s": min(kind.patience_s, _ANSWER_S)}
    )
    with open_store(impatient, run, identity) as opened:
        probe = _probe()
        opened.put(probe, [_PROBE])
        list(opened.parts(opened.manifest(probe.digest)))
        left = "two objects of 200 bytes stay, always the same"
        if hasattr(opened, "remove"):
            # Keys that may not delete are right for a site.
            with suppress(BaheflError):
                opened.remove(Link(DAG_CBOR, probe.digest))
                opened.remove(Link(RAW, probe.parts[0].digest))
                left = "nothing stays"
    yield ok("store", f"{kind.url or run / kind.path}: put and read back; {left}")


def _probe() -> Manifest:
    return manifest_for(
        [_PROBE], run=hashlib.sha256(_PROBE).digest(), round=0, site="0x" + "00" * 20, epoch=0, kind=ObjectKind.EVIDENCE
    )
