"""docs/audit.md against the code: the same checks with the same numbers, the same exit codes and JSON fields."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr import errors
from bahefl_flwr.audit.checks import CHECKS
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.report import ComparedModel, Report, Result, as_json, as_text

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
TESTS = Path(__file__).parents[1] / "tampered"


def report(*findings: Finding) -> Report:
    """A report of one check."""
    result = Result(number=5, title="what holds", meaning="it means this", remedy="do that", skipped="", findings=findings)
    return Report(
        run="run", chain_id=1, contract="0xC", block=7, block_hash="0xB", rounds=3, round=0, finalised=3, objects=9, tasks=(2,),
        all_tasks=2, addresses=("0xA", "0xB"), results=(result,),
    )  # fmt: skip


def test_every_check_has_its_number_in_the_page_and_a_test_that_breaks_it() -> None:
    """Checks are numbered 1 to n without a gap, in the table, in the page and in the tests."""
    numbers = list(range(1, len(CHECKS) + 1))
    assert [check.number for check in CHECKS] == numbers
    assert [int(n) for n in re.findall(r"^(\d+)\. \*\*", PAGE, re.MULTILINE)] == numbers
    tests = "".join(p.read_text(encoding="utf-8") for p in TESTS.glob("test_audit_*.py"))
    assert all(f"def test_check_{n}_finds_" in tests for n in numbers)


def test_every_check_says_what_a_failure_means_and_what_to_do() -> None:
    """In words, each its own title; nobody is left with a number."""
    assert len({check.title for check in CHECKS}) == len(CHECKS)
    assert all(len(check.meaning) > 20 and len(check.remedy) > 20 for check in CHECKS)


def test_the_page_names_the_exit_codes() -> None:
    """Those of errors.py."""
    kinds = (errors.AuditFailed, errors.SettingsError, errors.LedgerError, errors.StoreError)
    assert all(f"| {kind.exit_code} |" in PAGE for kind in kinds)


def test_the_page_shows_the_fields_of_the_json() -> None:
    """All of them, and no others."""
    shown = json.loads(PAGE.split("```json")[1].split("```")[0])
    true = json.loads(as_json(report(Finding(message="m", round=2, site=1, object="bafy"))))
    assert list(shown) == list(true)
    assert shown["first_failure"].keys() == true["first_failure"].keys()
    assert shown["ledger"].keys() == true["ledger"].keys()
    assert shown["checks"][0].keys() == true["checks"][0].keys()


def test_the_page_shows_what_is_said_of_a_model_file() -> None:
    """The fields of the JSON, and the very line of the text; nothing of a file that was not given."""
    named = replace(report(), model=ComparedModel(file="FILE", round=2, digest="aa", status="named"))
    shown = json.loads(PAGE.split("```json")[1].split("```")[0])
    assert shown["model"].keys() == json.loads(as_json(named))["model"].keys()
    line = "FILE: the model after round 2, as the ledger names it"
    assert line in as_text(named).splitlines()
    assert line in PAGE
    assert json.loads(as_json(report()))["model"] is None


def test_the_first_failure_is_that_of_the_earliest_round() -> None:
    """Whatever the order of the findings; one that concerns no round comes before all."""
    late, early = Finding(message="late", round=3), Finding(message="early", round=1, site=1, object="bafy")
    assert json.loads(as_json(report(late, early)))["first_failure"]["message"] == "early"
    assert json.loads(as_json(report(late, early, Finding(message="all"))))["first_failure"]["message"] == "all"
    assert as_text(report(late, early)).startswith("run run: task 2 of 2, 3 rounds")
    assert "first at site 1 (0xB) (check 5)" in as_text(report(Finding(message="m", site=1)))
    assert "first in round 1, site 1 (0xB), object bafy (check 5)" in as_text(report(late, early))


def test_the_text_tells_what_it_means_and_what_to_do() -> None:
    """Every failed check with its findings; of very many only the first, and that there are more."""
    text = as_text(report(*(Finding(message=f"wrong {i}", round=i) for i in range(1, 31))))
    assert "means: it means this" in text
    assert "do: do that" in text
    assert "round 1: wrong 1" in text
    assert "and 10 more" in text
    assert as_text(report()).endswith("every check holds")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"finalised": 0}, "every check holds, but no round was finalised"),
        ({"finalised": 0, "round": 2}, "every check holds, but the round was not finalised"),
        ({"finalised": 1, "round": 2}, "every check holds"),
    ],
)
def test_the_verdict_says_where_there_was_no_finalised_round(changes: dict[str, Any], verdict: str) -> None:
    """A run that came to nothing passes, since nothing in it is wrong; nobody is to take that for an audited model."""
    assert as_text(replace(report(), **changes)).splitlines()[-1] == verdict
