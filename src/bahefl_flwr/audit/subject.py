"""What is audited: a run folder, or a bundle. Opened without changing a byte of it.

The chain of a run folder is copied to a temporary folder and opened there; a bundle's is executed again from its transactions.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from eth_utils.address import to_checksum_address

from bahefl_flwr.audit.bundle import Bundle, begins_as_bundle
from bahefl_flwr.audit.case import Claim
from bahefl_flwr.audit.model_checks import model_file_claim
from bahefl_flwr.audit.objects import Access, BundledStore, open_objects
from bahefl_flwr.errors import LedgerError, SettingsError, StoreError
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.database import ChainDatabase
from bahefl_flwr.ledger.history import in_process
from bahefl_flwr.ledger.replay import altered_nodes, chain_id_of, compare, rebuild, recorded_blocks
from bahefl_flwr.run_folder import CONFIG_FILE, LEDGER_DATABASE, LEDGER_FILE, RunFolder
from bahefl_flwr.setting_groups import StoreSettings
from bahefl_flwr.store.reading import VerifiedReads
from bahefl_flwr.untrusted_json import read_json

MODELS = ("sites/*/model.safetensors", "sites/*/best.safetensors")
_AS_THE_RUN = Access()
# What a run of an earlier version, which knew folders only, does not say.
_OLDER_STORE = {
    "kind": "local",
    "url": "",
    "certificate": "",
    "endpoint": "",
    "region": "",
    "timeout_s": 30.0,
    "patience_s": 60.0,
}
_EMBEDDED = "embedded"
_IN_MEMORY = Path(":memory:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A run, opened.

    Attributes:
      connection: to its chain. contract: address. database: the chain's file or copy, None over JSON-RPC.
      rebuilt: to the chain as its transactions make it, for where the file makes no sense; None where there is none.
      chain_problems: what is wrong with the chain. claims: the models that the run's files name.
    """

    name: str
    connection: Connection
    contract: str
    store: VerifiedReads
    database: ChainDatabase | None
    chain_problems: tuple[str, ...]
    claims: tuple[Claim, ...]
    rebuilt: Connection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """What `ledger.json` says."""

    url: str
    chain_id: int
    contract: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """What `config.yaml` says: the store, None if nothing; the kind of ledger, "" if nothing."""

    store: StoreSettings | None
    ledger: str


@contextmanager
def open_subject(run: Path, rpc: str = "", access: Access = _AS_THE_RUN) -> Iterator[Subject]:
    """Open a run folder or a bundle.

    Args:
      rpc: JSON-RPC endpoint to ask instead of the run's own chain database. access: to a run's store.

    Raises:
      SettingsError: `run` is neither. LedgerError, StoreError: it is, but cannot be read.
    """
    if run.is_dir() and (run / LEDGER_FILE).is_file():
        config = _config(run)
        with open_objects(run, config.store, access) as store, _open_folder(run, rpc, config, store) as subject:
            yield subject
    elif run.is_file() and (begins_as_bundle(run) or zipfile.is_zipfile(run)):
        with Bundle.open(run) as bundle:
            yield _open_bundle(run, bundle)
    else:
        raise SettingsError(
            f"{run} is no run folder (a folder with {LEDGER_FILE}, as in run.root) and no bundle of `bahefl audit export`; "
            "of a run between hospitals the administrator has that folder, and can export it"
        )


@contextmanager
def _open_folder(run: Path, rpc: str, config: _Config, store: VerifiedReads) -> Iterator[Subject]:
    where, claims = _where(run), _claims(run)
    if not rpc and not (run / LEDGER_DATABASE).is_file() and config.ledger == _EMBEDDED:
        file = run / LEDGER_DATABASE
        raise LedgerError(f"{file} is missing, and this run's ledger was nowhere else: restore it, or audit a bundle")
    if rpc or not (run / LEDGER_DATABASE).is_file():
        connection = Connection(_endpoint(rpc) if rpc else where.url, where.chain_id)
        connection.check()
        yield Subject(
            name=run.name, connection=connection, contract=where.contract, store=store, database=None, chain_problems=(),
            claims=claims,
        )  # fmt: skip
        return
    with tempfile.TemporaryDirectory(prefix="bahefl-audit-") as folder, ExitStack() as stack:
        copy = _copied(run / LEDGER_DATABASE, Path(folder))
        try:
            chain_id, altered = chain_id_of(copy), altered_nodes(copy)
        except LedgerError as error:
            # The copy is gone when somebody reads this.
            raise LedgerError(str(error).replace(str(copy), str(run / LEDGER_DATABASE))) from error
        database, again = (stack.enter_context(closing(ChainDatabase(path, chain_id))) for path in (copy, _IN_MEMORY))
        problems, rebuilt = _executed_again(database, again, chain_id)
        if altered:
            problems.append(f"{altered} state nodes in the ledger's file do not have the content that their hash names")
        if chain_id != where.chain_id:
            problems.append(f"{LEDGER_FILE} names chain {where.chain_id}, {LEDGER_DATABASE} is of chain {chain_id}")
        yield Subject(
            name=run.name, connection=in_process(Chain(database, chain_id)), contract=where.contract, store=store,
            database=database, rebuilt=rebuilt, chain_problems=tuple(problems), claims=claims,
        )  # fmt: skip


def _copied(source: Path, folder: Path) -> Path:
    _refuse_in_use(source)
    for suffix in ("", "-wal"):  # a node that was killed leaves its last blocks in the second
        if (part := source.with_name(source.name + suffix)).exists():
            shutil.copyfile(part, folder / part.name)
    return folder / source.name


def _executed_again(database: ChainDatabase, again: ChainDatabase, chain_id: int) -> tuple[list[str], Connection | None]:
    """What is wrong with a chain's file, and the chain as its transactions make it, if they make one."""
    try:
        chain = rebuild(recorded_blocks(database), again, chain_id)
    except (LedgerError, sqlite3.Error) as error:
        return [str(error)], None
    return compare(database, again), in_process(chain)


def _refuse_in_use(database: Path) -> None:
    # SQLite locks ranges of the file itself; asking for them tells whether a node has it, and writes nothing.
    with database.open("rb") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise LedgerError(
                f"{database} is in use: the run is still going on; audit it when it has ended, or ask its node with --rpc"
            ) from None


def _open_bundle(path: Path, bundle: Bundle) -> Subject:
    database, problems = ChainDatabase(_IN_MEMORY, bundle.about.chain_id), []
    try:
        rebuild(bundle.blocks(), database, bundle.about.chain_id)
    except LedgerError as error:
        problems.append(str(error))
    return Subject(
        name=bundle.about.run, connection=in_process(Chain(database, bundle.about.chain_id)), contract=bundle.about.contract,
        store=BundledStore(path, bundle.object), database=database, chain_problems=tuple(problems),
        claims=(Claim(who="the run's summary.json", digest=bundle.about.model),) if bundle.about.model else (),
    )  # fmt: skip


def _endpoint(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--rpc needs http(s)://..., got {url!r}")
    return url


def _where(run: Path) -> _Where:
    path = run / LEDGER_FILE
    try:
        found = read_json(path.read_bytes())
        # Addresses are compared as text, also with those in manifests: one form only.
        contract = to_checksum_address(found["contract"])
        return _Where(url=str(found["url"]), chain_id=int(found["chain_id"]), contract=contract)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} does not say where the ledger is ({error!r}); restore it, or audit a bundle") from error


def _config(run: Path) -> _Config:
    """Of the run's settings, where its store and its ledger are."""
    path = run / CONFIG_FILE
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        store = {**_OLDER_STORE, **config["store"]}
        return _Config(store=StoreSettings.model_validate(store), ledger=str(config.get("ledger", {}).get("kind", "")))
    except FileNotFoundError:
        return _Config(store=None, ledger="")
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())
        raise StoreError(f"{path} does not say where the store and the ledger are: {type(error).__name__}: {what}") from error


def _claims(run: Path) -> tuple[Claim, ...]:
    try:
        # Whoever can edit the file can write anything that is JSON.
        summary: Any = RunFolder(path=run).summary()
        named = summary.get("ledger", {}).get("model_digest", "") if summary is not None else ""
        chosen = summary.get("chosen", {}) if summary is not None else {}
        best = (str(chosen.get("model_digest", "")), int(chosen.get("round", 0)))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise StoreError(f"{run / 'summary.json'} is not a run's summary ({error}); restore it, or remove it") from error
    claims = [Claim(who="summary.json", digest=str(named))] if named else []
    claims += [Claim(who="summary.json, as the chosen model,", digest=best[0], round=best[1])] if all(best) else []
    return (*claims, *(_site_claim(path) for path in sorted(path for files in MODELS for path in run.glob(files))))


def _site_claim(path: Path) -> Claim:
    """What a site's file claims; of an exchanged one that it is none, so that check 13 names it and the others are done."""
    try:
        return model_file_claim(path)
    except StoreError as error:
        return Claim(who=str(path), digest="", problem=str(error))
