"""A journal tells a crash, which it heals, from damage, which it refuses."""

import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from bahefl_flwr.errors import JournalError
from bahefl_flwr.journal import Journal, Key

RUN = "ab"
KEYS: list[Key] = [(RUN, number, "commit") for number in (1, 2, 3)]
WRITER = """
import sys
from bahefl_flwr.journal import Journal
journal = Journal(sys.argv[1])
print("ready", flush=True)
for number in range(1_000_000):
    journal.put(("ab", number, "commit"), {"filling": "x" * 3000})
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three records."""
    journal = Journal(tmp_path / "journal")
    for key in KEYS:
        journal.put(key, {"digest": f"{key[1]:02x}"})
    return journal.path


@pytest.mark.parametrize("mask", [0x01, 0x0A, 0x80])
def test_every_byte_counts(path: Path, mask: int) -> None:
    """One altered byte anywhere, also in the last record, its length or its newline, is damage and refused."""
    intact = path.read_bytes()
    for position in range(len(intact)):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ mask]) + intact[position + 1 :])
        with pytest.raises(JournalError, match="is damaged"):
            Journal(path)


def test_every_torn_tail_is_dropped_and_overwritten(path: Path) -> None:
    """Cut at any byte, the journal keeps the whole records, forgets the torn one, and records anew."""
    intact = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(intact) if byte == 0x0A]
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        whole = sum(end <= length for end in ends)
        journal = Journal(path)
        assert [journal.get(key) is not None for key in KEYS] == [index < whole for index in range(3)]
        for key in KEYS:
            journal.put(key, {"digest": f"{key[1]:02x}"})
        assert path.read_bytes() == intact


@pytest.mark.parametrize("torn", [0, 10, 30])
def test_zeros_after_a_torn_record_are_dropped(path: Path, torn: int) -> None:
    """A power cut may leave zeros where the record's bytes had not arrived."""
    intact = path.read_bytes()
    path.write_bytes(intact + intact[:torn] + bytes(500))
    journal = Journal(path)
    journal.put((RUN, 4, "commit"), {})
    assert Journal(path).get((RUN, 4, "commit")) == {}


def test_a_second_record_of_one_key_is_damage(path: Path) -> None:
    """Two results for one action are never chosen between."""
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(JournalError, match="second record of commit of round 1"):
        Journal(path)


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b"nonsense", b"[1]", b"[" * 9999, b'["ab",{},"commit",{}]', b'["ab",1,"commit",5]']
)
def test_a_foreign_record_is_damage(path: Path, text: bytes) -> None:
    """A frame that checks but holds no record of ours is refused."""
    path.write_bytes(b"%08x %08x %s\n" % (len(text), zlib.crc32(text), text))
    with pytest.raises(JournalError, match="is damaged"):
        Journal(path)


def test_a_file_that_became_shorter_is_damage(path: Path) -> None:
    """A running site notices when its journal is restored from an older copy."""
    journal = Journal(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(JournalError, match="shorter"):
        journal.put((RUN, 4, "commit"), {})


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.1])
def test_kill_loses_no_acknowledged_record(tmp_path: Path, seconds: float) -> None:
    """After kill -9 of a process that records in a loop, every record it reported is there."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "journal")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        reported = process.stdout.read().split("\n")[:-1]
    journal = Journal(tmp_path / "journal")
    assert all(journal.get((RUN, int(number), "commit")) is not None for number in reported)
