"""Claims about writing files."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bahefl_flwr.durable import atomic_write, create_once


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A disk that takes no file above 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """The new bytes are there, private, and nothing else is."""
    atomic_write(tmp_path / "file", b"a long old content")
    atomic_write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("full_disk")
def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """On a full disk the old bytes stay and no temporary file is left."""
    atomic_write(tmp_path / "file", b"old")
    with pytest.raises(OSError, match="File too large"):
        atomic_write(tmp_path / "file", bytes(101))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_target_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    """A rename that cannot happen leaves no temporary file."""
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_create_once_never_replaces(tmp_path: Path) -> None:
    """The first writer wins, and each writer learns whether it was the first."""
    assert create_once(tmp_path / "file", b"first")
    assert not create_once(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
