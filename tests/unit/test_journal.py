"""Claims about the journal, on real files and real processes."""

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.errors import JournalError
from bahefl_flwr.journal import Journal

RUN = "ab" * 32
COMMIT = (RUN, 3, "commit")
HOLD = """
import sys
from bahefl_flwr.journal import Journal
journal = Journal(sys.argv[1])
with journal.lock():
    journal.put(("ab" * 32, 9, "from-child"), {"pid": 1})
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "site" / "journal")


@pytest.fixture
def holder(journal: Journal) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `journal`."""
    command = [sys.executable, "-c", HOLD, str(journal.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_result_survives_reopening(journal: Journal) -> None:
    """What was put is got, by this journal and by one opened later; an unknown key is None."""
    journal.put(COMMIT, {"digest": "00ff", "weight": 7, "metrics": {"dice": 0.5, "text": "é\n"}})
    for reader in (journal, Journal(journal.path)):
        assert reader.get(COMMIT) == {"digest": "00ff", "weight": 7, "metrics": {"dice": 0.5, "text": "é\n"}}
        assert reader.get((RUN, 4, "commit")) is None


def test_the_same_result_may_be_put_twice(journal: Journal) -> None:
    """A repeated action adds nothing to the file."""
    journal.put(COMMIT, {"a": 1, "b": (2, 3)})
    size = journal.path.stat().st_size
    journal.put(COMMIT, {"b": [2, 3], "a": 1})
    assert journal.path.stat().st_size == size


def test_another_result_for_the_same_key_is_refused(journal: Journal) -> None:
    """A site never has two results for one action; the first stays."""
    journal.put(COMMIT, {"digest": "00"})
    with pytest.raises(JournalError, match="commit of round 3, run abababab is already recorded"):
        journal.put(COMMIT, {"digest": "01"})
    assert journal.get(COMMIT) == {"digest": "00"}


@pytest.mark.parametrize("result", [{"x": float("nan")}, {"x": b"bytes"}, {"x": {1, 2}}, {1: 2, "a": 3}])
def test_results_that_json_cannot_hold_are_refused(journal: Journal, result: dict[Any, Any]) -> None:
    """Nothing is recorded that would read back as something else."""
    with pytest.raises(JournalError, match="cannot be recorded"):
        journal.put(COMMIT, result)
    assert journal.get(COMMIT) is None


def test_results_are_copies(journal: Journal) -> None:
    """Changing what get returned changes nothing in the journal."""
    journal.put(COMMIT, {"list": [1]})
    first = journal.get(COMMIT)
    assert first is not None
    first["list"].append(2)
    assert journal.get(COMMIT) == {"list": [1]}


def test_a_journal_sees_what_another_process_recorded(journal: Journal, holder: subprocess.Popen[str]) -> None:
    """Two processes of one site share one memory."""
    assert holder.poll() is None
    assert journal.get((RUN, 9, "from-child")) == {"pid": 1}


def test_only_one_process_holds_the_lock(journal: Journal, holder: subprocess.Popen[str]) -> None:
    """While one process acts, another waits no longer than it was told, then names the holder."""
    with pytest.raises(JournalError, match=f"process {holder.pid} has held"), journal.lock(timeout_s=0.1):
        pass


def test_the_lock_of_a_killed_process_is_free(journal: Journal, holder: subprocess.Popen[str]) -> None:
    """kill -9 of the holder frees the lock at once."""
    holder.kill()
    holder.wait()
    with journal.lock(timeout_s=5):
        journal.put(COMMIT, {})
    assert journal.get(COMMIT) == {}


def test_threads_of_one_process_exclude_each_other(journal: Journal) -> None:
    """The lock holds between threads too, and may be nested within one."""
    refused: list[JournalError] = []

    def try_to_lock() -> None:
        try:
            with journal.lock(timeout_s=0.05):
                pass
        except JournalError as error:
            refused.append(error)

    with journal.lock(), journal.lock():
        thread = threading.Thread(target=try_to_lock)
        thread.start()
        thread.join()
    assert len(refused) == 1
    try_to_lock()
    assert len(refused) == 1


def test_an_exception_frees_the_lock(journal: Journal) -> None:
    """A failed action does not block the next one."""
    with pytest.raises(KeyError), journal.lock():
        raise KeyError
    with Journal(journal.path).lock(timeout_s=0.1):
        pass


def test_a_full_disk_records_nothing_and_damages_nothing(journal: Journal) -> None:
    """A record that did not fit is not there afterwards, and the journal works again when there is room."""
    journal.put(COMMIT, {"x": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 40, hard))
    try:
        with pytest.raises(JournalError, match="free space"):
            journal.put((RUN, 4, "commit"), {"x": "y" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.get((RUN, 4, "commit")) is None
    journal.put((RUN, 4, "commit"), {"x": 2})
    assert Journal(journal.path).get((RUN, 4, "commit")) == {"x": 2}


def test_the_journal_is_private(journal: Journal) -> None:
    """Only the site's user may read the file."""
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_an_unusable_path_is_refused(tmp_path: Path) -> None:
    """A folder in place of the file is a JournalError that names it."""
    with pytest.raises(JournalError, match=str(tmp_path)):
        Journal(tmp_path)
