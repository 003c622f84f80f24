"""This machine: versions, switches of telemetry, the site's data, disk, clock."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bahefl_flwr.doctor.finding import Finding, failure, ok, warning

_PACKAGE: Final = "bahefl-flwr"
_SHOWN: Final = ("flwr", "tenseal", "torch", "web3", "py-evm")
_NEWEST_PYTHON: Final = "3.13"
# Flower's SuperLink refuses a node that is more than 5 s ahead of it, and forgives one that is 305 s behind.
_AHEAD_S: Final = 5.0
_BEHIND_S: Final = 300.0
_ANSWER_S: Final = 10.0


def versions() -> Iterator[Finding]:
    """The installed packages against what this package was made for."""
    try:
        ours = importlib.metadata.version(_PACKAGE)
        wanted = [Requirement(text) for text in importlib.metadata.requires(_PACKAGE) or ()]
    except importlib.metadata.PackageNotFoundError:
        yield warning("versions", f"{_PACKAGE} is not installed (a source folder)", "pip install it, for the versions it needs")
        return
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [problem for r in needed if (problem := _problem(r))]
    got = ", ".join(f"{name} {_installed(name) or 'missing'}" for name in _SHOWN)
    if wrong:
        yield failure("versions", "; ".join(wrong), f"pip install {_PACKAGE}=={ours} -c constraints.txt")
    yield ok("versions", f"{_PACKAGE} {ours}, {got}")
    yield _python(platform.python_version())


def _python(version: str) -> Finding:
    if SpecifierSet(f">=3.11,<={_NEWEST_PYTHON}.99").contains(version, prereleases=True):
        return ok("python", version)
    return failure("python", version, f"use Python 3.11 to {_NEWEST_PYTHON}")


def _problem(requirement: Requirement) -> str:
    found = _installed(requirement.name)
    if found and requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} {found or 'is missing'}, needed {requirement.specifier}"


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def telemetry(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether Flower reports to its makers: anonymous figures, but from inside a hospital's network."""
    if environment.get("FLWR_TELEMETRY_ENABLED") == "0":
        yield ok("telemetry", "FLWR_TELEMETRY_ENABLED=0: Flower sends nothing to its makers")
    else:
        yield warning(
            "telemetry",
            "FLWR_TELEMETRY_ENABLED is not 0: flower-superlink, flower-supernode and flwr send anonymous figures to flower.ai",
            "set FLWR_TELEMETRY_ENABLED=0 (and FLWR_DISABLE_UPDATE_CHECK=1) where they start; flower-simulation sends nothing",
        )


def data(root: str) -> Iterator[Finding]:
    """A site's slices, each read once: what is here will be trained on, so it must be there, paired and readable.

    Raises:
      DataError: the folder lacks `frames/` or `masks/`, or one of them cannot be read.
    """
    from bahefl_flwr.lesion.inspection import inspect

    if not root:
        yield failure("data", "data.kind=folder, and no folder is named", "set data.root, or data-root in site.yaml")
        return
    found = inspect(Path(root).expanduser())
    if not found.usable:
        more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        yield failure("data", f"{root}: {found.problems[0]}{more}", f"bahefl data inspect {root} lists every file")
    elif not found.positive:
        yield warning("data", f"{root}: {len(found.slices)} slices, none with lesion", "is it the right folder?")
    else:
        yield ok("data", f"{root}: {len(found.slices)} slices, {found.positive} with lesion")


def disk(folder: Path, needed_bytes: int, what: str) -> Finding:
    """Free space where `folder` is or will be, against a prediction."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return failure("disk", f"{there}: {error}", "mend the folder, or name another")
    got = f"{free / 1e9:.1f} GB free at {there}; {what} takes about {needed_bytes / 1e9:.2f} GB"
    if not os.access(there, os.W_OK | os.X_OK):
        return failure("disk", f"{there} cannot be written by this user", "give it to this user, or name another folder")
    if free < needed_bytes:
        return failure("disk", got, "free space, fewer rounds (federation.rounds), or another disk")
    if free < 2 * needed_bytes:
        return warning("disk", got, "free space: less than twice of what is needed is left")
    return ok("disk", got)


def clock_of_server(url: str, certificate: Path | None) -> Finding:
    """This clock against the Date that a server (the SuperLink) answers with; its resolution is a second."""
    if not url.startswith(("http://", "https://")):
        return failure("clock", f"{url!r} is no http(s)://host:port", "give the SuperLink's address with its scheme")
    try:
        trusted = ssl.create_default_context(cafile=certificate)
        sent = _date_of(url, trusted)
    except (OSError, ValueError, TypeError) as error:
        return failure(
            "clock", f"{url} tells no time: {error}", "start the SuperLink, or mend --superlink or --root-certificates"
        )
    return _judged(time.time() - sent - 0.5, f"the SuperLink at {url}")


def _date_of(url: str, trusted: ssl.SSLContext) -> float:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_S, context=trusted) as answer:  # noqa: S310  checked above
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    return parsedate_to_datetime(date).timestamp()


def clock_of_chain(newest_s: int, now_s: float) -> Finding:
    """This clock against the time of the ledger's newest block: no block is from the future."""
    ahead = newest_s - now_s
    if ahead > _AHEAD_S:
        return failure("clock", f"this clock is {ahead:.0f} s behind the ledger's newest block", "set it by NTP")
    return ok("clock", f"{-ahead:.0f} s after the ledger's newest block")


def _judged(ahead_s: float, whom: str) -> Finding:
    if ahead_s > _AHEAD_S:
        return failure(
            "clock", f"{ahead_s:.0f} s ahead of {whom}", f"set it by NTP: Flower refuses nodes over {_AHEAD_S:.0f} s ahead"
        )
    if ahead_s < -_BEHIND_S:
        return failure("clock", f"{-ahead_s:.0f} s behind {whom}", "set it by NTP: Flower refuses nodes that are 305 s behind")
    if abs(ahead_s) > 2.0:
        return warning("clock", f"{ahead_s:+.0f} s beside {whom}", "set it by NTP")
    return ok("clock", f"{ahead_s:+.1f} s beside {whom}")
