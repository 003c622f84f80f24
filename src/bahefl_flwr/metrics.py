"""Prometheus metrics of a driver and of sites, as files that a node exporter's textfile collector reads.

Processes here are short: a site's lives for one message. So the numbers live in the file, and each process adds to them. The only
module that knows prometheus-client, the extra `metrics`. What each metric means, for operators: docs/operations.md.
"""

from __future__ import annotations

import fcntl
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import SettingsError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

VARIABLE: Final = "BAHEFL_METRICS"
"""The folder that the node exporter reads; unset or empty: no metrics."""
DRIVER_FILE: Final = "bahefl-driver.prom"
SITE_FILE: Final = "bahefl-site-{}.prom"

_LOCK = ".bahefl.lock"

_log = logging.getLogger("bahefl_flwr.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: a counter's name ends in `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """What Prometheus is told it is."""
        return "counter" if self.name.endswith("_total") else "gauge"


DRIVER: Final = (
    Family(name="bahefl_run_active", help="1 while a ServerApp drives a run, 0 once it has ended"),
    Family(name="bahefl_round", help="Round that is open"),
    Family(name="bahefl_last_finalised_timestamp_seconds", help="When the newest finalised round was told of"),
    Family(name="bahefl_rounds_total", help="Rounds that ended", labels=("outcome",)),
    Family(name="bahefl_phase_seconds_total", help="Wall seconds of the driver", labels=("phase",)),
    Family(name="bahefl_bytes_total", help="Bytes that sites stored", labels=("kind",)),
    Family(name="bahefl_gas_total", help="Gas that sites used"),
    Family(name="bahefl_exclusions_total", help="Updates left out of an aggregate", labels=("reason",)),
    Family(name="bahefl_coordinators_replaced_total", help="Coordinators that failed or were outvoted"),
    Family(name="bahefl_errors_total", help="Runs that an error ended", labels=("error",)),
)
SITE: Final = (
    Family(name="bahefl_site_round", help="Round of the newest action", labels=("site",)),
    Family(name="bahefl_site_last_action_timestamp_seconds", help="When the newest action was done", labels=("site",)),
    Family(name="bahefl_site_actions_total", help="Actions done", labels=("site", "action")),
    Family(name="bahefl_site_action_seconds_total", help="Wall seconds of actions", labels=("site", "action")),
    Family(name="bahefl_site_bytes_total", help="Bytes that this site stored", labels=("site", "kind")),
    Family(name="bahefl_site_gas_total", help="Gas that this site used", labels=("site",)),
    Family(name="bahefl_site_errors_total", help="Actions refused or failed", labels=("site", "error")),
)


class Book:
    """The numbers of one file while they are open."""

    def __init__(self, registry: CollectorRegistry, families: tuple[Family, ...]) -> None:
        from prometheus_client import Counter, Gauge

        self._metrics: dict[str, Any] = {
            f.name: (Counter if f.kind == "counter" else Gauge)(f.name, f.help, f.labels, registry=registry) for f in families
        }

    def add(self, name: str, value: float, **labels: str) -> None:
        """Count."""
        self._of(name, labels).inc(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Say how it is now."""
        self._of(name, labels).set(value)

    def restore(self, text: str) -> None:
        """Begin with what an earlier process wrote; what this version does not know is dropped."""
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in self._metrics:
                    self._of(sample.name, sample.labels).inc(sample.value)

    def _of(self, name: str, labels: Mapping[str, str]) -> Any:
        return self._metrics[name].labels(**labels) if labels else self._metrics[name]


class Metrics:
    """One file of metrics.

    Args:
      folder: that the collector reads. name: of the file, ending in .prom. families: what is in it.

    Raises:
      SettingsError: prometheus-client is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, families: tuple[Family, ...]) -> None:
        self.file, self._families = folder / name, families
        try:
            from prometheus_client import disable_created_metrics
        except ImportError:
            raise SettingsError(f"{VARIABLE} needs prometheus-client: pip install 'bahefl-flwr[metrics]'") from None
        disable_created_metrics()  # type: ignore[no-untyped-call]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _LOCK).touch()
        except OSError as error:
            raise SettingsError(f"{VARIABLE}={folder} cannot be written: {error}; name a folder of this user's") from error

    def update(self, change: Callable[[Book], None]) -> None:
        """Read the numbers, change them, write them: alone. A disk that refuses costs the numbers, never a round."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        book = Book(registry, self._families)
        try:
            with (self.file.parent / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._restore(book)
                change(book)
                # Whoever collects is another user, and the numbers are no secret.
                atomic_write(self.file, generate_latest(registry), mode=0o644)
        except OSError as error:
            _log.warning("the metrics in %s cannot be kept: %s", self.file, error)

    def _restore(self, book: Book) -> None:
        try:
            book.restore(self._written())
        except (ValueError, KeyError) as error:
            _log.warning("%s is damaged and begun anew: %s", self.file, error)

    def _written(self) -> str:
        try:
            return self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""


class DriverMetrics:
    """What a driver tells; with no folder, nothing.

    Args:
      folder: value of `BAHEFL_METRICS`.

    Raises:
      SettingsError: as `Metrics`.
    """

    def __init__(self, folder: str) -> None:
        self._metrics = Metrics(Path(folder).expanduser(), DRIVER_FILE, DRIVER) if folder else None

    @contextmanager
    def run(self) -> Iterator[None]:
        """Mark the run as active meanwhile, and count the error that ends it."""
        self._update(lambda book: book.set("bahefl_run_active", 1))
        try:
            yield
        except Exception as error:
            name = type(error).__name__
            self._update(lambda book: book.add("bahefl_errors_total", 1, error=name))
            raise
        finally:
            self._update(lambda book: book.set("bahefl_run_active", 0))

    def round(self, line: Mapping[str, Any]) -> None:
        """Count a round that ended, by its line of `metrics.jsonl`."""
        self._update(lambda book: _count(book, line))

    def _update(self, change: Callable[[Book], None]) -> None:
        if self._metrics:
            self._metrics.update(change)


def _count(book: Book, line: Mapping[str, Any]) -> None:
    if line.get("begun", True):
        book.add("bahefl_rounds_total", 1, outcome="finalised" if line["finalised"] else "abandoned")
    book.set("bahefl_round", line["round"] + 1)
    if line["finalised"]:
        book.set("bahefl_last_finalised_timestamp_seconds", time.time())
    for phase, seconds in line["seconds"].items():
        if phase != "total":
            book.add("bahefl_phase_seconds_total", seconds, phase=phase)
    for kind, size in line["bytes"].items():
        book.add("bahefl_bytes_total", size, kind=kind)
    for reason in line["excluded"].values():
        book.add("bahefl_exclusions_total", 1, reason=reason)
    book.add("bahefl_gas_total", line["gas"].get("total", 0))
    book.add("bahefl_coordinators_replaced_total", line["attempt"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An action that a site has carried out, or that failed: then `error` names its type.

    Attributes:
      round: that the action was about, None for a step of a key ceremony. seconds: wall.
    """

    action: str
    seconds: float
    round: int | None = None
    bytes: Mapping[str, int]
    gas: int = 0
    error: str = ""


def count_action(folder: str, site: str, done: Done) -> None:
    """Count what a site did.

    Args:
      folder: value of `BAHEFL_METRICS`; empty: nothing is counted. site: its address; before it is known, its partition.

    Raises:
      SettingsError: as `Metrics`.
    """
    if not folder:
        return
    # Several sites of one machine share a folder, and no series may be in it twice: each carries its site.
    file = SITE_FILE.format(re.sub(r"[^0-9A-Za-z]", "-", site))
    Metrics(Path(folder).expanduser(), file, SITE).update(lambda book: _count_done(book, site, done))


def _count_done(book: Book, site: str, done: Done) -> None:
    book.set("bahefl_site_last_action_timestamp_seconds", time.time(), site=site)
    book.add("bahefl_site_action_seconds_total", done.seconds, site=site, action=done.action)
    if done.error:
        book.add("bahefl_site_errors_total", 1, site=site, error=done.error)
        return
    book.add("bahefl_site_actions_total", 1, site=site, action=done.action)
    for name, size in done.bytes.items():
        if size:
            # Objects are numbered ("share-6-f046..."); a label must not be, or there would be more of them every round.
            book.add("bahefl_site_bytes_total", size, site=site, kind=name.partition("-")[0])
    book.add("bahefl_site_gas_total", done.gas, site=site)
    if done.round is not None:
        book.set("bahefl_site_round", done.round, site=site)
