"""docs/operations.md against the code: every exit code, metric and log field that there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from bahefl_flwr import cli, console, errors, logs, metrics
from bahefl_flwr.steps import Action

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    """One section of the document."""
    return re.split(r"^## ", TEXT.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def codes() -> dict[int, set[str]]:
    """Exit codes in errors.py, and the errors that end with each."""
    found: dict[int, set[str]] = {}
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.BaheflError):
            found.setdefault(error.exit_code, set()).add(name)
    return found


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    """Every error beside its code, and nothing else."""
    rows = re.findall(r"^\| (\d+) \|([^|]*)\|", section("Exit codes"), re.MULTILINE)
    told = {int(code): {name.strip() for name in names.split(",") if name.strip()} for code, names in rows}
    assert told.keys() - codes().keys() == {0, console.INTERRUPTED, cli.TERMINATED}
    assert {code: names for code, names in told.items() if names} == codes()


def test_every_metric_is_told() -> None:
    """By its whole name, with its labels; and no other."""
    text = section("Metrics")
    told = set(re.findall(r"^\| `(bahefl_[a-z_]+)`", text, re.MULTILINE))
    assert told == {family.name for family in (*metrics.DRIVER, *metrics.SITE)}
    for family in (*metrics.DRIVER, *metrics.SITE):
        (row,) = re.findall(rf"^\| `{family.name}` \|.*$", text, re.MULTILINE)
        assert all(f"`{label}`" in row for label in family.labels if label != "site")


def test_every_field_of_a_line_is_told() -> None:
    """Those that every line has, those that some have, and every phase."""
    text = section("Logs")
    fields = {"time", "level", "logger", "message", "traceback", *logs.CONTEXT, *logs.FIGURES}
    rows = re.findall(r"^\| (`[a-z]+`(?:, `[a-z]+`)*) \|", text, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([a-z]+)`", row)} - {"json", "text"}
    assert told == fields
    assert all(f"`{action.rpartition('.')[2]}`" in text for action in Action)


def test_every_unit_is_told() -> None:
    """Each service by its name."""
    units = {path.stem for path in (Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service")}
    assert set(re.findall(r"^\| `(bahefl-[a-z]+)` \|", section("Services"), re.MULTILINE)) == units
