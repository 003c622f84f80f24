"""Claims about docs/election.md: its figures are what the script measures, and what can be worked out exactly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITES = 10


def cells(text: str) -> dict[str, list[float]]:
    """Figures of all tables in a text, by the label of their row."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {label: [float(f) for f in figures] for label, *figures in rows if figures and all(_is_figure(f) for f in figures)}


def _is_figure(cell: str) -> bool:
    return cell.replace(".", "", 1).isdigit()


@pytest.fixture(scope="module")
def page() -> dict[str, list[float]]:
    """What the page says."""
    _, _, rest = (ROOT / "docs" / "election.md").read_text(encoding="utf-8").partition("<!-- bias -->")
    return cells(rest.partition("<!-- /bias -->")[0])


def test_the_pages_figures_are_the_scripts(page: dict[str, list[float]]) -> None:
    """The same rows, and every figure within what a twentieth of the trials can tell."""
    command = [sys.executable, str(ROOT / "benchmarks" / "election_bias.py"), "--trials", "20000"]
    measured = cells(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert list(page) == list(measured)
    for label, figures in page.items():
        assert measured[label] == pytest.approx(figures, abs=0.02), label


@pytest.mark.parametrize("k", [1, 2, 3])
def test_what_has_a_formula_agrees_with_it(page: dict[str, list[float]], k: int) -> None:
    """Fair elections, XOR of reveals: 1 - (1 - k/10)^(2^k); and private tickets, which are as good as fair."""
    by_hand = {
        "fair": k / SITES,
        "RANDAO: XOR of revealed values": 1 - (1 - k / SITES) ** (1 << k),
        "**private tickets**, salt fixed": k / SITES,
    }
    assert {label: page[label][k - 1] for label in by_hand} == pytest.approx(by_hand, abs=0.003)
