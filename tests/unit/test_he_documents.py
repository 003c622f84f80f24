"""What docs/security.md says in numbers is what the code computes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_noise_budget_in_the_document_is_the_codes() -> None:
    """The generated table is up to date."""
    command = [sys.executable, str(ROOT / "benchmarks" / "noise_budget.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_test_file_that_the_document_names_exists() -> None:
    """A claim whose test is gone is no claim."""
    document = (ROOT / "docs" / "security.md").read_text()
    named = {word.strip("`,|") for word in document.split() if word.startswith("`tests/")}
    assert named and all((ROOT / name).is_file() for name in named)
