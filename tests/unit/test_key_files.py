"""Claims about key files, on real files."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bahefl_flwr.errors import KeysError
from bahefl_flwr.key_files import (
    MAX_SECRET_BYTES,
    THROW_AWAY,
    Binding,
    Passphrase,
    Protection,
    SecretKind,
    create_secret,
    read_secret,
    stated_site,
    write_secret,
)

PASSPHRASE = Passphrase("correct horse battery")
SITE = "0xAbCd" + "11" * 18
BINDING = Binding(kind=SecretKind.KEY_SHARE, site=SITE, chain_id=5, contract="0x" + "22" * 20, epoch=3)
CREATE = """
import sys
from pathlib import Path
from bahefl_flwr.key_files import *
path, binding = Path(sys.argv[1]), Binding(kind=SecretKind.IDENTITY, site="0x" + "11" * 20)
create_secret(path, sys.argv[2].encode(), THROW_AWAY, binding)
print(read_secret(path, THROW_AWAY, binding))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file name in a private folder."""
    tmp_path.chmod(0o700)
    return tmp_path / "share.key"


@pytest.mark.parametrize("protection", [PASSPHRASE, THROW_AWAY], ids=["encrypted", "throw-away"])
def test_a_secret_comes_back(path: Path, protection: Protection) -> None:
    """What was written is read, the newest of two, from a file of mode 0600 whatever the umask."""
    before = os.umask(0)
    try:
        write_secret(path, b"first", protection, BINDING)
        write_secret(path, b"second", protection, BINDING)
    finally:
        os.umask(before)
    assert read_secret(path, protection, BINDING) == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["share.key"]


def test_an_encrypted_file_shows_nothing_of_its_secret_and_is_never_the_same(path: Path) -> None:
    """Writing one secret twice gives two files that share no salt, key check or text."""
    write_secret(path, b"a secret of several words", PASSPHRASE, BINDING)
    first = path.read_bytes()
    write_secret(path, b"a secret of several words", PASSPHRASE, BINDING)
    assert b"secret" not in first
    assert first[-105:-73] != path.read_bytes()[-105:-73]
    assert first[-73:-41] != path.read_bytes()[-73:-41]
    assert first[-41:] != path.read_bytes()[-41:]


def test_the_first_line_tells_whether_a_file_is_encrypted(path: Path) -> None:
    """An operator sees with `head -1` what lies there, and the site's address can be read without the passphrase."""
    write_secret(path, b"secret", THROW_AWAY, BINDING)
    assert path.read_bytes().splitlines()[0] == b"bahefl key file 1, THROW-AWAY: not encrypted"
    write_secret(path, b"secret", PASSPHRASE, BINDING)
    assert path.read_bytes().splitlines()[0] == b"bahefl key file 1, scrypt and AES-256-GCM"
    assert stated_site(path) == SITE.lower()


def test_create_keeps_what_is_there(path: Path) -> None:
    """A second create changes nothing."""
    create_secret(path, b"first", THROW_AWAY, BINDING)
    create_secret(path, b"second", THROW_AWAY, BINDING)
    assert read_secret(path, THROW_AWAY, BINDING) == b"first"


def test_processes_that_create_at_once_read_the_same(path: Path) -> None:
    """Of several processes one wins, and all use its secret."""
    commands = [[sys.executable, "-c", CREATE, str(path), name] for name in ("a", "b", "c")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    assert len({process.communicate()[0] for process in processes}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_open_to_others_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    """Check 1: any bit for group or others stops the site, and the message holds the command that mends it."""
    write_secret(path, b"secret", THROW_AWAY, BINDING)
    path.chmod(mode)
    with pytest.raises(KeysError, match=f"run: chmod 600 {path}"):
        read_secret(path, THROW_AWAY, BINDING)


def test_a_folder_open_to_others_is_refused_with_the_remedy(path: Path) -> None:
    """Check 1: neither is a secret read from such a folder nor written into it."""
    write_secret(path, b"secret", THROW_AWAY, BINDING)
    path.parent.chmod(0o750)
    with pytest.raises(KeysError, match=f"run: chmod 700 {path.parent}"):
        read_secret(path, THROW_AWAY, BINDING)
    with pytest.raises(KeysError, match=f"run: chmod 700 {path.parent}"):
        write_secret(path, b"secret", THROW_AWAY, BINDING)


def test_what_is_not_a_regular_file_is_refused_at_once(path: Path) -> None:
    """Check 1: a pipe in the file's place does not hold the site, and a folder is refused like it."""
    os.mkfifo(path, 0o600)
    with pytest.raises(KeysError, match="not a regular file"):
        read_secret(path, THROW_AWAY, BINDING)
    (path.parent / "folder").mkdir(mode=0o700)
    with pytest.raises(KeysError, match="cannot read"):
        read_secret(path.parent / "folder", THROW_AWAY, BINDING)


def test_a_missing_file_is_named(path: Path) -> None:
    """A file that is not there is a KeysError with its path."""
    with pytest.raises(KeysError, match=f"cannot read {path}"):
        read_secret(path, THROW_AWAY, BINDING)


@pytest.mark.parametrize("nothing", [None, "", "correct horse battery", False])
def test_what_is_no_passphrase_never_means_plain_files(path: Path, nothing: Protection) -> None:
    """A passphrase that was looked up and not found, or never made a Passphrase, neither writes nor reads."""
    with pytest.raises(KeysError, match="where a Passphrase is due"):
        write_secret(path, b"secret", nothing, BINDING)
    assert not path.exists()
    write_secret(path, b"secret", THROW_AWAY, BINDING)
    with pytest.raises(KeysError, match="where a Passphrase is due"):
        read_secret(path, nothing, BINDING)


@pytest.mark.parametrize("size", [0, MAX_SECRET_BYTES + 1])
def test_a_secret_of_impossible_size_is_not_written(path: Path, size: int) -> None:
    """Nothing is written that could not be read back."""
    with pytest.raises(KeysError, match="a key file holds 1 to"):
        write_secret(path, bytes(size), THROW_AWAY, BINDING)
    assert not path.exists()


def test_the_largest_secret_comes_back(path: Path) -> None:
    """1 MiB fits, encrypted and plain."""
    write_secret(path, bytes(MAX_SECRET_BYTES), PASSPHRASE, BINDING)
    assert read_secret(path, PASSPHRASE, BINDING) == bytes(MAX_SECRET_BYTES)
    write_secret(path, bytes(MAX_SECRET_BYTES), THROW_AWAY, BINDING)
    assert read_secret(path, THROW_AWAY, BINDING) == bytes(MAX_SECRET_BYTES)


@pytest.mark.parametrize("site", ["", "0x12", "0x" + "1" * 42, "0xzz" + "11" * 19])
def test_a_binding_needs_an_address(path: Path, site: str) -> None:
    """What is no address binds nothing."""
    with pytest.raises(KeysError, match="addresses have 20 bytes"):
        write_secret(path, b"secret", THROW_AWAY, Binding(kind=SecretKind.IDENTITY, site=site))


def test_a_disk_that_refuses_is_a_keys_error(path: Path) -> None:
    """A folder that is not there is named, with what to do."""
    with pytest.raises(KeysError, match="name a folder this user may write"):
        write_secret(path / "missing" / "share.key", b"secret", THROW_AWAY, BINDING)


def test_a_passphrase_is_neither_printed_nor_copied() -> None:
    """repr, str and format are redacted; pickling and copying raise."""
    assert f"{PASSPHRASE!r} {PASSPHRASE!s} {PASSPHRASE}" == " ".join(["<Passphrase redacted>"] * 3)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="does not leave its process"):
            leak(PASSPHRASE)


@pytest.mark.parametrize("text", ["", "short", "eleven char", "correct horse battery\n", "correct\0horse battery", "\ud800" * 12])
def test_unusable_passphrases_are_refused_without_showing_them(text: str) -> None:
    """Short ones, and ones with a line break from a file, are refused before anything is encrypted under them."""
    with pytest.raises(KeysError) as caught:
        Passphrase(text)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_passphrase_typed_on_another_keyboard_is_the_same(path: Path) -> None:
    """Composed and decomposed letters open the same file."""
    write_secret(path, b"secret", Passphrase("gr\u00fcne Wiesen hier"), BINDING)
    assert read_secret(path, Passphrase("gru\u0308ne Wiesen hier"), BINDING) == b"secret"
