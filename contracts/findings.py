"""Run Slither and compare its findings with the answers in docs/slither.md.

Usage: `nox -s slither`, or `python contracts/findings.py` with slither-analyzer installed and forge on the PATH.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ANSWERS = HERE.parent / "docs" / "slither.md"
_ROW = re.compile(r"^\| `([\w-]+)` \| `([\w.*]+)` \| \S", re.MULTILINE)

Finding = tuple[str, str]


def findings() -> set[Finding]:
    """What Slither finds: detector, and the first place it names ("Contract.function.variable")."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "findings.json"
        command = [sys.executable, "-m", "slither", ".", "--filter-paths", "node_modules|test", "--json", str(report)]
        # The exit status is the number of findings; what went wrong is in the report, if there is one.
        run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        if not report.exists():
            sys.exit(f"slither failed:\n{run.stderr[-2000:]}")
        result = json.loads(report.read_text(encoding="utf-8"))
    if not result["success"]:
        sys.exit(f"slither failed: {result['error']}")
    return {(found["check"], _place(found["elements"][0])) for found in result["results"].get("detectors", [])}


def _place(element: dict[str, Any]) -> str:
    parent = element.get("type_specific_fields", {}).get("parent")
    outer = _place(parent) + "." if parent and parent["type"] != "file" else ""
    return outer + str(element["name"])


def answers() -> list[Finding]:
    """Detector and place of every row of the table."""
    return _ROW.findall(ANSWERS.read_text(encoding="utf-8"))


def _answers(row: Finding, found: Finding) -> bool:
    return row[0] == found[0] and fnmatchcase(found[1], row[1])


def main() -> None:
    """Exit with status 1 and the differences, if there are any."""
    found, rows = findings(), answers()
    open_ = sorted(f for f in found if not any(_answers(row, f) for row in rows))
    stale = [row for row in rows if not any(_answers(row, f) for f in found)]
    print(f"slither: {len(found)} findings, {len(rows)} answers")
    if open_ or stale:
        sys.exit("\n".join([*(f"no answer: {d} at {p}" for d, p in open_), *(f"no such finding: {d} at {p}" for d, p in stale)]))


if __name__ == "__main__":
    main()
