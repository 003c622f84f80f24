"""`bahefl doctor`: whether a run here can be expected to work and to be safe. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bahefl_flwr.commands.output import Format

if TYPE_CHECKING:
    from bahefl_flwr.doctor.examination import Keys, Place
    from bahefl_flwr.doctor.finding import Finding
    from bahefl_flwr.doctor.prediction import Prediction
    from bahefl_flwr.homes import SiteHome
    from bahefl_flwr.settings import Settings

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def doctor(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", hidden=True)] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUN", help="A run's folder: its settings, ledger and rounds.")
    ] = None,
    site: Annotated[Path | None, typer.Option("--site", metavar="HOME", help="A site's home, of bahefl site init.")] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FOLDER", help="A site's keys, to look at and use.")
    ] = None,
    passphrase_file: Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="What opens them.")] = None,
    superlink: Annotated[str, typer.Option("--superlink", metavar="URL", help="Compare clocks with it: https://host:8000.")] = "",
    root_certificates: Annotated[
        Path | None, typer.Option("--root-certificates", metavar="FILE", help="PEM file of the SuperLink's authority.")
    ] = None,
    parameters: Annotated[
        int, typer.Option("--parameters", metavar="N", show_default=False, help="Of your model; else the lesion model's.")
    ] = 0,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", show_default=False, help="Encrypt for seconds to predict a round, or not.")
    ] = True,
    format: Annotated[Format, typer.Option("--format", show_default=False, help="text (the default) or json.")] = Format.TEXT,
) -> None:
    """Check versions, keys, ledger, store, clock and disk, and predict a round: exit 0 without a failure, 12 with one.

    Settings are given as for flower-simulation (ledger=rpc ledger.url=...), or taken from --run. With --site, give those
    that bahefl ledger deploy was given: what it adds to them is added here too, and ledger and store are the home's. Nothing
    is asked but the endpoints named, and nothing is changed there: a store gets one small object, always the same.
    """
    from bahefl_flwr.doctor.examination import examine
    from bahefl_flwr.doctor.finding import Level
    from bahefl_flwr.errors import DoctorFailed

    place = replace(
        _site(overrides or [], site) if site else _place(overrides or [], run, _keys(identity, passphrase_file)),
        superlink=superlink, certificate=root_certificates, environment=dict(os.environ),
    )  # fmt: skip
    prediction = _prediction(place.settings, parameters) if measure and place.compare else None
    findings = tuple(examine(place, prediction))
    typer.echo(_json(findings, prediction) if format is Format.JSON else _text(findings))
    if any(f.level is Level.FAILURE for f in findings):
        raise typer.Exit(DoctorFailed.exit_code)


def _keys(identity: Path | None, passphrase_file: Path | None) -> Keys | None:
    from bahefl_flwr.doctor.examination import Keys

    if identity is None:
        return None
    return Keys(identity=identity.expanduser(), epochs=identity.expanduser().parent, passphrase_file=str(passphrase_file or ""))


def _site(overrides: list[str], site: Path) -> Place:
    from bahefl_flwr.administration import Chain, settings_on
    from bahefl_flwr.doctor.examination import Keys, Place
    from bahefl_flwr.federation import LedgerAddress
    from bahefl_flwr.homes import IDENTITY_FOLDER, load_site

    folder = site.expanduser().absolute()
    home = load_site(folder)
    on = Chain(url=home.ledger_url, chain_id=home.chain_id)
    settings = _reached_from(home, settings_on(on, folder, [*_store_of(home, overrides), *overrides]))
    return Place(
        settings=settings, folder=folder, home=home, compare=bool(overrides),
        settled=settings.store.kind != "local" or bool(home.store_path),
        ledger=LedgerAddress(url=home.ledger_url, chain_id=home.chain_id, contract=home.contract),
        keys=Keys(identity=folder / IDENTITY_FOLDER, epochs=folder / "runs", passphrase_file=home.passphrase_file),
    )  # fmt: skip


def _store_of(home: SiteHome, overrides: list[str]) -> list[str]:
    """Which store it is, as the home knows it, where the settings given do not say."""
    if not home.store_url or "store=local" in overrides:
        return []
    return [f"store={'s3' if home.store_url.startswith('s3:') else 'http'}", f"store.url='{home.store_url}'"]


def _reached_from(home: SiteHome, settings: Settings) -> Settings:
    """A run's settings, with what the owner of a home decides for it.

    Raises:
      SettingsError: the run's store is of another kind than the home's.
    """
    from bahefl_flwr.settings import validate

    names = ("path",) if settings.store.kind == "local" else ("url", "certificate", "endpoint")
    store = {name: value for name in names if (value := getattr(home, f"store_{name}"))}
    tree = settings.model_dump()
    tree["store"] |= store
    tree["ledger"] |= {"max_fee_gwei": home.max_fee_gwei, "priority_fee_gwei": home.priority_fee_gwei}
    return validate(tree)


def _place(overrides: list[str], run: Path | None, keys: Keys | None) -> Place:
    from bahefl_flwr.doctor.examination import Place
    from bahefl_flwr.errors import SettingsError
    from bahefl_flwr.federation import LedgerAddress, ledger_address
    from bahefl_flwr.settings import compose
    from bahefl_flwr.trained import open_run

    if run is None:
        settings = compose(overrides)
        chain = settings.ledger
        where = LedgerAddress(url=chain.url, chain_id=chain.chain_id, contract=chain.contract) if chain.kind == "rpc" else None
        return Place(settings=settings, folder=Path(settings.run.root).expanduser() / "new", ledger=where, keys=keys)
    if overrides:
        raise SettingsError(f"--run takes its settings from {run}: leave out {' '.join(overrides)}")
    found = open_run(run)
    stopped = found.settings.ledger.kind == "embedded" and found.summary is not None
    ended = found.summary.get("ledger") if found.summary else None
    keys_were = f"; its keys were {ended['key_mode']}" if ended else ""
    return Place(
        settings=found.settings, folder=found.folder.path, ledger=None if stopped else ledger_address(found.folder.path),
        why_none=f"it has stopped with the run{keys_were}; bahefl audit {run} reads what it left", lines=found.lines, keys=keys,
    )  # fmt: skip


def _prediction(settings: Settings, parameters: int) -> Prediction:
    from bahefl_flwr.doctor.prediction import predict
    from bahefl_flwr.site.state import task_params

    groups = settings.screening.groups if settings.screening.kind != "off" else 0
    return predict(parameters or _lesion_parameters(settings), task_params(settings), groups)


def _lesion_parameters(settings: Settings) -> int:
    # torch takes two seconds to import; who says --parameters does without.
    from bahefl_flwr.lesion.model import build, initial_weights

    return sum(w.size for w in initial_weights(build(settings.model, settings.data.image_size_px), settings.run.seed))


def _text(findings: tuple[Finding, ...]) -> str:
    from bahefl_flwr.doctor.finding import Level

    lines = []
    for f in findings:
        level = f.level.value if f.level is Level.OK else f.level.value.upper()
        lines.append(f"{level:<8} {f.check:<10} {f.got}")
        if f.advice:
            lines.append(f"{'':<19} -> {f.advice}")
    counts = Counter(f.level for f in findings)
    return "\n".join([*lines, ", ".join(f"{counts[level]} {level.value}" for level in Level)])


def _json(findings: tuple[Finding, ...], prediction: Prediction | None) -> str:
    predicted = None
    if prediction:
        derived = ("sent_bytes", "received_bytes", "stored_bytes", "kept_bytes", "site_seconds")
        predicted = asdict(prediction) | {name: getattr(prediction, name) for name in derived}
    return json.dumps({"findings": [asdict(f) for f in findings], "prediction": predicted}, indent=2)
