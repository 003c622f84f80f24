"""docs/faults.md against the tests: what it names is there, for `nox -s faults` runs what it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE))))
def test_every_test_that_the_page_names_is_there(path: str) -> None:
    """A renamed file would silently leave a fault untested."""
    found = ROOT / path
    assert list(found.glob("test_*.py")) if found.is_dir() else found.is_file()


def test_every_row_has_a_test() -> None:
    """A fault without one is a claim without proof."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert not [row for row in rows if "`tests/" not in row]
