"""Each numbered check of read_secret, broken exactly; check 1 is in tests/unit/test_key_files.py."""

import hashlib
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from bahefl_flwr import key_files
from bahefl_flwr.errors import KeysError
from bahefl_flwr.key_files import THROW_AWAY, Binding, Passphrase, Protection, ScryptCost, SecretKind, read_secret

PASSPHRASE = Passphrase("correct horse battery")
BINDING = Binding(kind=SecretKind.KEY_SHARE, site="0x" + "11" * 20, chain_id=5, contract="0x" + "22" * 20, epoch=3)
SECRET = b"32 bytes of a seed, or nearly so"
# Where the three cost bytes stand in an encrypted file.
COST_AT = len(key_files._ENCRYPTED) + key_files._BINDING.size


def file_bytes(protection: Protection) -> bytes:
    """A good file, at a cost that lets every byte be tried."""
    return key_files._file_bytes(SECRET, protection, BINDING, salt=bytes(range(32)), cost=ScryptCost(log2_n=1, r=1))


GOOD = {THROW_AWAY: file_bytes(THROW_AWAY), PASSPHRASE: file_bytes(PASSPHRASE)}
both = pytest.mark.parametrize("protection", [PASSPHRASE, THROW_AWAY], ids=["encrypted", "throw-away"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of mode 0600 in a private folder."""
    tmp_path.chmod(0o700)
    (tmp_path / "share.key").touch(mode=0o600)
    return tmp_path / "share.key"


@both
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_counts(path: Path, protection: Protection, mask: int) -> None:
    """One bit flipped anywhere (first line, binding, cost, salt, key check, text, tag, checksum) is refused."""
    good = GOOD[protection]
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ mask]) + good[position + 1 :])
        with pytest.raises(KeysError):
            read_secret(path, protection, BINDING)


@both
def test_every_length_counts(path: Path, protection: Protection) -> None:
    """A file cut anywhere, or one byte longer, is refused."""
    good = GOOD[protection]
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(KeysError):
            read_secret(path, protection, BINDING)
    path.write_bytes(good + b"\0")
    with pytest.raises(KeysError, match=r"altered|damaged"):
        read_secret(path, protection, BINDING)


@pytest.mark.parametrize(
    "data", [b"", b"bahefl key file 2, scrypt and AES-256-GCM\n" + bytes(500), b'{"version": 1}', key_files._ENCRYPTED]
)
def test_what_is_no_key_file_is_refused(path: Path, data: bytes) -> None:
    """Check 2: another version, the plain JSON of older builds, or nothing."""
    path.write_bytes(data)
    with pytest.raises(KeysError, match="not a key file of version 1"):
        read_secret(path, PASSPHRASE, BINDING)


def test_a_file_longer_than_any_of_ours_is_not_read_to_its_end(path: Path) -> None:
    """Check 2: a file of 4 GiB is refused after its first MiB."""
    with path.open("r+b") as file:
        file.write(GOOD[PASSPHRASE])
        file.truncate(1 << 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(KeysError, match="not a key file"):
        read_secret(path, PASSPHRASE, BINDING)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 65536  # KiB


def test_plain_and_encrypted_files_never_stand_in_for_each_other(path: Path) -> None:
    """Check 3: a passphrase opens no plain file, so nobody can slip a deployment keys of their own; and the other way round."""
    path.write_bytes(GOOD[THROW_AWAY])
    with pytest.raises(KeysError, match="throw-away key, not encrypted"):
        read_secret(path, PASSPHRASE, BINDING)
    path.write_bytes(GOOD[PASSPHRASE])
    with pytest.raises(KeysError, match="no passphrase was given"):
        read_secret(path, THROW_AWAY, BINDING)


@both
@pytest.mark.parametrize(
    "change",
    [
        {"kind": SecretKind.EPOCH_ENTROPY},
        {"site": "0x" + "33" * 20},
        {"chain_id": 6},
        {"contract": "0x" + "33" * 20},
        {"epoch": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_file_opens_under_its_own_binding_only(path: Path, protection: Protection, change: dict[str, str]) -> None:
    """Check 4: a file of another kind, site, chain, contract or epoch is refused, and the message names both."""
    path.write_bytes(GOOD[protection])
    with pytest.raises(KeysError, match=r"holds the key share of 0x1+, epoch 3 .* wanted is the "):
        read_secret(path, protection, replace(BINDING, **change))  # type: ignore[arg-type]


def test_rewriting_the_binding_does_not_help(path: Path) -> None:
    """Checks 4 and 7: the binding in the file is authenticated; to pass an old share off as a new one fails."""
    other = replace(BINDING, epoch=4)
    start = len(key_files._ENCRYPTED)
    path.write_bytes(GOOD[PASSPHRASE][:start] + key_files._encoded(other) + GOOD[PASSPHRASE][COST_AT:])
    with pytest.raises(KeysError, match="was altered since it was written"):
        read_secret(path, PASSPHRASE, other)


@pytest.mark.parametrize("cost", [(19, 8, 1), (255, 1, 1), (16, 255, 1), (16, 8, 255), (18, 9, 1)])
def test_a_file_cannot_make_us_use_gigabytes(path: Path, cost: tuple[int, int, int]) -> None:
    """Check 5: a scrypt cost above 256 MiB is refused before scrypt starts."""
    path.write_bytes(GOOD[PASSPHRASE][:COST_AT] + bytes(cost) + GOOD[PASSPHRASE][COST_AT + 3 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(KeysError, match="more than any file of ours"):
        read_secret(path, PASSPHRASE, BINDING)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 65536  # KiB


@pytest.mark.parametrize("cost", [(0, 8, 1), (1, 0, 1), (1, 1, 0), (18, 1, 1)])
def test_a_cost_that_scrypt_refuses_is_a_keys_error(path: Path, cost: tuple[int, int, int]) -> None:
    """Check 5: costs within bounds that scrypt does not have (N = 1, r = 0, p = 0, N >= 2**(16 r))."""
    path.write_bytes(GOOD[PASSPHRASE][:COST_AT] + bytes(cost) + GOOD[PASSPHRASE][COST_AT + 3 :])
    with pytest.raises(KeysError, match="which failed"):
        read_secret(path, PASSPHRASE, BINDING)


def test_another_passphrase_is_told_from_an_altered_file(path: Path) -> None:
    """Checks 6 and 7: the operator learns which of the two to mend, and neither message shows a secret."""
    path.write_bytes(GOOD[PASSPHRASE])
    with pytest.raises(KeysError, match="does not open with this passphrase") as wrong:
        read_secret(path, Passphrase("correct horse batterY"), BINDING)
    path.write_bytes(GOOD[PASSPHRASE][:-1] + bytes([GOOD[PASSPHRASE][-1] ^ 1]))
    with pytest.raises(KeysError, match="was altered since it was written") as altered:
        read_secret(path, PASSPHRASE, BINDING)
    assert "horse" not in f"{wrong.value}{altered.value}"


def test_a_damaged_throw_away_file_is_found(path: Path) -> None:
    """Check 7: the checksum covers the binding as well as the secret."""
    head = key_files._NOT_ENCRYPTED + key_files._encoded(BINDING)
    path.write_bytes(head + hashlib.sha256(SECRET).digest() + SECRET)
    with pytest.raises(KeysError, match="is damaged"):
        read_secret(path, THROW_AWAY, BINDING)
