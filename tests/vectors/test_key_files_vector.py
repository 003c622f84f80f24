"""Fixed key files, written down from the module's description with the standard library's scrypt, not with the module."""

from pathlib import Path

from bahefl_flwr.key_files import THROW_AWAY, Binding, Passphrase, SecretKind, _file_bytes, read_secret

PASSPHRASE = Passphrase("correct horse battery")
SITE, CONTRACT = "0x" + "11" * 20, "0x" + "22" * 20
SHARE = Binding(kind=SecretKind.KEY_SHARE, site=SITE, chain_id=20260, contract=CONTRACT, epoch=7)
ENTROPY = Binding(kind=SecretKind.EPOCH_ENTROPY, site=SITE, chain_id=20260, contract=CONTRACT, epoch=7)
SALT = bytes(range(32))
ENCRYPTED = b"bahefl key file 1, scrypt and AES-256-GCM\n" + bytes.fromhex(
    "0311111111111111111111111111111111111111110000000000004f2422222222222222222222222222222222222222220000000000000007"
    "100801000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "a4fdacade9dca8c4b8693aea6f19f20ea770f3b50023998841820e77b119f8df"
    "c01b63c6cc34db19fe725702162ec78d917b21b6378a6ee626632264520c39be497ab0f46b15"
)
NOT_ENCRYPTED = b"bahefl key file 1, THROW-AWAY: not encrypted\n" + bytes.fromhex(
    "0211111111111111111111111111111111111111110000000000004f2422222222222222222222222222222222222222220000000000000007"
    "21e901e66ed65e2978ef3ed72d8128a97009eac31292acddaea654ab1a4b9166656e74726f7079206f662065706f63682037"
)


def private(path: Path, data: bytes) -> Path:
    path.parent.chmod(0o700)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_an_encrypted_file_of_version_1_opens(tmp_path: Path) -> None:
    """The known file opens to the known secret, and the same secret, salt and binding give the same file."""
    assert read_secret(private(tmp_path / "share.key", ENCRYPTED), PASSPHRASE, SHARE) == b"a share of key epoch 7"
    assert _file_bytes(b"a share of key epoch 7", PASSPHRASE, SHARE, salt=SALT) == ENCRYPTED


def test_a_throw_away_file_of_version_1_opens(tmp_path: Path) -> None:
    """The known plain file opens to the known secret, and the same secret and binding give the same file."""
    assert read_secret(private(tmp_path / "entropy.key", NOT_ENCRYPTED), THROW_AWAY, ENTROPY) == b"entropy of epoch 7"
    assert _file_bytes(b"entropy of epoch 7", THROW_AWAY, ENTROPY, salt=SALT) == NOT_ENCRYPTED
