"""Structured logs: each record of this package one line of JSON, with the run, round, site and phase that it belongs to.

Off unless asked for by `BAHEFL_LOG` (docs/operations.md), which every process's first lines hand to `configure`. Of a record only
the fields named here are written: nothing secret gets in by being attached to one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bahefl_flwr.errors import SettingsError

VARIABLE: Final = "BAHEFL_LOG"
"""`json`: to standard error. `json:FILE`: appended to FILE, by any number of processes. Unset, empty or `text`: as ever."""
CONTEXT: Final = ("run", "round", "epoch", "site", "phase")
"""On every line, null where a line belongs to none: Flower's run id, the ledger's round or key epoch, the site's address."""
FIGURES: Final = ("member", "seconds", "bytes", "gas", "reason")
"""On lines that have them: the member's index that a driver's line is about, and what something took."""

_PACKAGE = "bahefl_flwr"
_NOTHING: Final[dict[str, str | int | None]] = dict.fromkeys(CONTEXT)
_belongs_to: ContextVar[dict[str, str | int | None]] = ContextVar("bahefl_log_context", default=_NOTHING)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: the fields of `CONTEXT`, those of `FIGURES` that it has, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_belongs_to.get(),
        }
        line |= {name: getattr(record, name) for name in FIGURES if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Lines(logging.Handler):
    """Writes each record at once and whole, so that processes may share a file, fork, and have it rotated under them.

    Args:
      file: None for whatever standard error is when a record comes; Flower puts its own in place meanwhile.
    """

    def __init__(self, file: Path | None) -> None:
        super().__init__()
        self.file = file
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            if self.file is None:
                sys.stderr.write(line)
                sys.stderr.flush()
                return
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except Exception:  # noqa: BLE001  as logging does: what cannot be logged must not end a round
            self.handleError(record)


def configure(asked: str) -> bool:
    """Log in the form that was asked for, from now on; again with the same form, nothing changes.

    Args:
      asked: the value of `BAHEFL_LOG`.

    Returns:
      Whether that is JSON on standard error, where nothing else should be printed then.

    Raises:
      SettingsError: there is no such form, or the file cannot be written.
    """
    form, _, name = asked.partition(":")
    if form in ("", "text") and not name:
        return False
    if form != "json" or (":" in asked and not name):
        raise SettingsError(f"{VARIABLE}={asked!r}: it must be json, json:FILE or text")
    file = Path(name).expanduser().absolute() if name else None
    _check_writable(file)
    logger = logging.getLogger(_PACKAGE)
    here = [handler for handler in logger.handlers if isinstance(handler, _Lines)]
    if [handler.file for handler in here] != [file]:
        for handler in here:
            logger.removeHandler(handler)
        logger.addHandler(_Lines(file))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return file is None


def structured() -> bool:
    """Whether this process logs as JSON."""
    return any(isinstance(handler, _Lines) for handler in logging.getLogger(_PACKAGE).handlers)


@contextmanager
def belonging(**fields: str | int | None) -> Iterator[None]:
    """Lines of this block, in this thread, belong to what `fields` say (of `CONTEXT`), and otherwise to what they did before."""
    before = _belongs_to.set(_joined(fields))
    try:
        yield
    finally:
        _belongs_to.reset(before)


def belong(**fields: str | int | None) -> None:
    """The same until the enclosing `belonging` ends: for what becomes known on the way, such as a site's address."""
    _belongs_to.set(_joined(fields))


def _joined(fields: dict[str, str | int | None]) -> dict[str, str | int | None]:
    if unknown := fields.keys() - set(CONTEXT):
        raise ValueError(f"a log line has no {sorted(unknown)}; CONTEXT names what it has")
    return {**_belongs_to.get(), **fields}


def _check_writable(file: Path | None) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise SettingsError(f"{VARIABLE}: {file} cannot be written: {error}; name a file that this user may write") from error
