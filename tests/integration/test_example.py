"""The example: an ordinary Flower project, and the patch that makes it secure. Each command of its README is run as it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.federation

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, as a user would have it."""
    folder = tmp_path_factory.mktemp("example") / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    return folder


def commands() -> list[str]:
    """The example's own documented commands, in order."""
    blocks = re.findall(r"^```sh example\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a shell with this environment activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_patch_changes_at_most_ten_lines() -> None:
    """Ten lines are new, ten are gone, blank ones counted."""
    lines = (EXAMPLE / "secure.patch").read_text().splitlines()
    assert sum(line.startswith("+") and not line.startswith("+++") for line in lines) <= 10
    assert sum(line.startswith("-") and not line.startswith("---") for line in lines) <= 10


@pytest.mark.timeout(400)
def test_the_example_learns_plain_and_secure(project: Path) -> None:
    """The plain project learns; patched, it learns as well, and its run's audit finds nothing."""
    plain, patch, secure, audit = commands()
    accuracies = re.findall(r"^accuracy (\S+)$", run(plain, project).stdout, re.MULTILINE)
    assert len(accuracies) == 3
    assert float(accuracies[-1]) > 0.9

    run(patch, project)
    told = run(secure, project).stdout
    lines = [json.loads(line) for line in next(project.glob("runs/*-numpyclient/metrics.jsonl")).read_text().splitlines()]
    assert [line["included"] for line in lines] == [[0, 1, 2]] * 3
    assert lines[-1]["validation"]["accuracy"] == pytest.approx(float(accuracies[-1]), abs=0.01)
    assert "accuracy" in told
    assert "every check holds" in run(audit, project).stdout
