"""Claims about structured logs: where lines go, what is in them, and that nothing changes where nobody asked."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bahefl_flwr import logs
from bahefl_flwr.errors import SettingsError


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The package's logger is the process's: put back after each test."""
    logger = logging.getLogger("bahefl_flwr")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    logger.level, logger.propagate, logger.handlers = before


def say(message: str, **extra: object) -> None:
    logging.getLogger("bahefl_flwr.test").info(message, extra=extra)


@pytest.mark.parametrize("asked", ["", "text"])
def test_nothing_changes_unless_asked_for(asked: str) -> None:
    """No handler, no level."""
    logger = logging.getLogger("bahefl_flwr")
    before = (logger.level, logger.propagate, list(logger.handlers))
    assert not logs.configure(asked)
    assert (logger.level, logger.propagate, logger.handlers) == before
    assert not logs.structured()


@pytest.mark.parametrize("asked", ["xml", "json:", "text:file", "JSON"])
def test_a_form_that_there_is_not_is_refused(asked: str) -> None:
    """With those that there are."""
    with pytest.raises(SettingsError, match="it must be json, json:FILE or text"):
        logs.configure(asked)


def test_a_file_that_cannot_be_written_is_refused() -> None:
    """Before anything depends on it."""
    with pytest.raises(SettingsError, match="BAHEFL_LOG: /proc/nowhere/log cannot be written"):
        logs.configure("json:/proc/nowhere/log")


def test_lines_go_to_what_standard_error_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked twice, each line comes once."""
    assert logs.configure("json")
    assert logs.configure("json")
    say("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"


def test_a_line_belongs_to_what_surrounds_it(tmp_path: Path) -> None:
    """Inner blocks add, and end; what else is attached to a record is never written."""
    assert not logs.configure(f"json:{tmp_path / 'log'}")
    with logs.belonging(run="7", round=1):
        with logs.belonging(phase="train"):
            logs.belong(site="0x1")
            say("in", seconds=1.5, password="secret")
        say("out")
    inner, outer = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert {name: inner[name] for name in (*logs.CONTEXT, "seconds")} == {
        "run": "7", "round": 1, "epoch": None, "site": "0x1", "phase": "train", "seconds": 1.5,
    }  # fmt: skip
    assert "password" not in inner
    assert (outer["phase"], outer["site"], outer["round"]) == (None, None, 1)


def test_a_field_that_there_is_not_is_a_mistake_of_ours() -> None:
    """Misspelt, it would never be found again."""
    with pytest.raises(ValueError, match="no \\['rond'\\]"), logs.belonging(rond=1):
        pass


def test_a_file_may_be_rotated_and_shared_with_forked_processes(tmp_path: Path) -> None:
    """Every line whole, in the file that has the name when it is written."""
    file = tmp_path / "log"
    logs.configure(f"json:{file}")
    say("first")
    file.rename(tmp_path / "log.1")
    children = []
    for k in range(4):
        child = os.fork()
        if not child:
            for _ in range(50):
                say(f"{k}" * 500)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 200
    assert {line["message"] for line in lines} == {f"{k}" * 500 for k in range(4)}
    assert file.stat().st_mode & 0o777 == 0o600
