"""All checks of one place, in the order in which a person would ask: this machine, its keys, the services, then the cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bahefl_flwr import homes
from bahefl_flwr.doctor import machine, protection, services
from bahefl_flwr.doctor.finding import Finding, attempted, ok, warning
from bahefl_flwr.doctor.prediction import Prediction
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.federation import LedgerAddress
from bahefl_flwr.identity import Identity
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.run_folder import RoundLine
from bahefl_flwr.settings import Settings, cautions
from bahefl_flwr.site.place import expect_conditions
from bahefl_flwr.site.state import task_params

# Predicted and real sizes differ by headers and records, which are small.
_LIKE = 0.05
_GIVE_SETTINGS = "give those that bahefl ledger deploy was given: federation.sites=5 store=http ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A site's keys.

    Attributes:
      identity: folder of its long-term keys. epochs: folder that holds those of key epochs.
      passphrase_file: of both; empty for keys that are not encrypted.
    """

    identity: Path
    epochs: Path | None = None
    passphrase_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is to be examined.

    Attributes:
      folder: where the run or the site keeps its files, existing or not; a relative `store.path` starts there.
      ledger: None where it is started with the run. why_none: what to say of it then.
      compare: whether `settings` are those of the run: then contract and keys must be as they say.
      home: a site's, whose conditions the run must meet.
      settled: whether `settings` say which store it is.
      superlink, certificate: address, and PEM file of its authority, to compare clocks with; "" for none.
      lines: of a run, to compare the prediction with.
      environment: of the process.
    """

    settings: Settings
    folder: Path
    ledger: LedgerAddress | None
    why_none: str = "it is started with the run"
    keys: Keys | None = None
    compare: bool = True
    settled: bool = True
    home: homes.SiteHome | None = None
    superlink: str = ""
    certificate: Path | None = None
    lines: Sequence[RoundLine] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def examine(place: Place, prediction: Prediction | None) -> Iterator[Finding]:
    """Look at everything.

    Args:
      prediction: what a round will cost; None where nobody asked, or it cannot be known.
    """
    yield from machine.versions()
    yield from machine.telemetry(place.environment)
    yield protection.security_level()
    yield from _settings(place)
    if place.keys:
        yield from protection.key_files(place.keys.identity, place.keys.epochs, place.keys.passphrase_file)
    identity = _identity(place.keys)
    if (root := _data_root(place)) is not None:
        yield from attempted("data", lambda: machine.data(root), "name the folder that holds frames/ and masks/")
    yield from _ledger(place, identity)
    yield from _store(place, identity)
    if place.superlink:
        yield machine.clock_of_server(place.superlink, place.certificate)
    if prediction:
        yield _disk(place, prediction)
        yield _cost(prediction)
        yield from reality(prediction, place.lines)


def _settings(place: Place) -> Iterator[Finding]:
    """What the run's settings say, where they are known: others say nothing of it."""
    settings, home = place.settings, place.home
    if not place.compare:
        yield warning("settings", "those of the run are not known: neither compared nor is a round predicted", _GIVE_SETTINGS)
        return
    params = task_params(settings)
    yield protection.key_mode(params.threshold, params.committee, "the settings")
    for caution in cautions(settings):
        got, _, advice = caution.partition("; ")
        yield warning("sites", got, advice)
    if home:
        yield from attempted("site", lambda: _conditions(home, settings))


def _conditions(home: homes.SiteHome, settings: Settings) -> Iterator[Finding]:
    expect_conditions(home, settings)
    yield ok("site", "a run of these settings meets the conditions in site.yaml")


def _data_root(place: Place) -> str | None:
    """The folder of slices that is to be trained on from here, "" if none is named; None if that is nothing to look at here.

    So it is for phantoms, and where only the sites know theirs.
    """
    deployed = place.settings.federation.admission == "registrar"
    data = homes.with_own_data(place.settings, homes.own_data_root({}, place.home)).data
    return data.root if data.kind == "folder" and (place.home or not deployed) else None


def _identity(keys: Keys | None) -> Identity | None:
    """The site's keys, if they open; that they do not is a finding of its own."""
    try:
        return Identity.load(keys.identity, homes.protection(keys.passphrase_file)) if keys else None
    except BaheflError:
        return None


def _ledger(place: Place, identity: Identity | None) -> Iterator[Finding]:
    if place.ledger is None:
        yield ok("ledger", place.why_none)
        return
    where, account = place.ledger, identity.address if identity else ""
    yield from attempted("ledger", lambda: services.ledger(place.settings, where, account, compare=place.compare))


def _store(place: Place, identity: Identity | None) -> Iterator[Finding]:
    if not place.settled:
        yield warning("store", "not known before a run says it", "give the run's settings, such as store=http store.url=...")
        return
    yield from attempted("store", lambda: services.store(place.settings, place.folder, identity))


def _disk(place: Place, prediction: Prediction) -> Finding:
    """A simulation keeps the store and every site on this machine; a site keeps its own."""
    rounds, sites = place.settings.federation.rounds, prediction.sites
    if place.keys and place.settings.store.kind != "local":
        return machine.disk(place.folder, prediction.kept_bytes, "a site's folder")
    stored = rounds * prediction.stored_bytes if place.settings.store.kind == "local" else 0
    return machine.disk(place.folder, stored + sites * prediction.kept_bytes, f"a run of {rounds} rounds")


def _cost(p: Prediction) -> Finding:
    sizes = ", ".join(f"{kind.value} {size / 1e6:.2f}" for kind, size in p.object_bytes.items())
    return ok(
        "round",
        f"{p.parameters:,} parameters, {p.sites} sites: a site sends up to {p.sent_bytes / 1e6:.1f} MB ({sizes}) and reads "
        f"{p.received_bytes / 1e6:.1f} MB; encryption, proofs and opening take {p.site_seconds:.2f} s of one core "
        f"({', '.join(f'{step} {s:.2f}' for step, s in p.seconds.items())}); training, network and ledger come on top",
    )


def reality(prediction: Prediction, lines: Sequence[RoundLine]) -> Iterator[Finding]:
    """The prediction against rounds that were: an update's size, and the seconds that a round took."""
    told = [line for line in lines if line["finalised"] and line["committed"]]
    if not told:
        return
    sizes = sorted(line["bytes"].get("update", 0) / len(line["committed"]) for line in told)
    size, predicted = sizes[len(sizes) // 2], prediction.object_bytes[ObjectKind.UPDATE]
    seconds = sorted(line["seconds"]["total"] for line in told)[len(told) // 2]
    training = sorted(line["seconds"].get("train", 0.0) for line in told)[len(told) // 2]
    got = (
        f"an update had {size / 1e6:.3f} MB, predicted {predicted / 1e6:.3f}; a round took {seconds:.1f} s, {training:.1f} s of "
        "which training"
    )
    if abs(size - predicted) > _LIKE * predicted:
        yield warning("round", got, "say how many parameters the model has: --parameters N")
    else:
        yield ok("round", got)
