"""Claims about a site's identity, on real files."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import encode_defunct
from eth_hash.auto import keccak

from bahefl_flwr.errors import KeysError, SealError
from bahefl_flwr.identity import FILE_NAME, Identity, Onion
from bahefl_flwr.sealing import seal

SEED = bytes(range(32))
CREATE = "import sys; from bahefl_flwr.identity import Identity as I; print(I.create_or_load(sys.argv[1]).sealing_public.hex())"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an identity was made."""
    Identity.create_or_load(tmp_path / "keys")
    return tmp_path / "keys"


def secrets_in(folder: Path) -> list[str]:
    """The secret hex texts of the identity file."""
    written = json.loads((folder / FILE_NAME).read_text())
    return [written[name] for name in ("ethereum", "sealing", "onion")]


def test_the_identity_is_the_same_every_time(folder: Path) -> None:
    """A site keeps its address, sealing key and onion over restarts."""
    first, second = Identity.create_or_load(folder), Identity.load(folder)
    assert first.address == second.address
    assert first.sealing_public == second.sealing_public
    assert first.onion.tip == second.onion.tip


def test_two_sites_share_nothing(tmp_path: Path) -> None:
    """Two identities made in one run have no secret in common."""
    for name in ("site-1", "site-2"):
        Identity.create_or_load(tmp_path / name)
    assert not set(secrets_in(tmp_path / "site-1")) & set(secrets_in(tmp_path / "site-2"))
    assert len(set(secrets_in(tmp_path / "site-1"))) == 3


def test_two_processes_make_one_identity(tmp_path: Path) -> None:
    """Processes that start at the same time agree on one identity."""
    command = [sys.executable, "-c", CREATE, str(tmp_path / "keys")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert len({process.communicate()[0] for process in processes}) == 1


def test_folder_and_file_are_private(folder: Path) -> None:
    """The folder is 0700 and the file 0600, whatever the umask."""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize(("name", "mode", "wanted"), [(FILE_NAME, 0o640, "600"), (FILE_NAME, 0o604, "600"), (".", 0o750, "700")])
def test_files_that_others_may_read_are_refused_with_the_remedy(folder: Path, name: str, mode: int, wanted: str) -> None:
    """A readable key file or folder stops the site, and the message holds the command that mends it."""
    (folder / name).chmod(mode)
    with pytest.raises(KeysError, match=f"run: chmod {wanted} "):
        Identity.create_or_load(folder)


def test_account_signs_as_the_address(folder: Path) -> None:
    """The account is a working Ethereum account of the identity's address."""
    from eth_account import Account

    identity = Identity.load(folder)
    signed = identity.account.sign_message(encode_defunct(b"text"))
    assert Account.recover_message(encode_defunct(b"text"), signature=signed.signature) == identity.address


def test_unseal_opens_what_was_sealed_to_the_identity(folder: Path) -> None:
    """Bytes sealed to an identity's public key open with it, and only in their context."""
    identity = Identity.load(folder)
    sealed = seal(b"share", {identity.address: identity.sealing_public}, b"round 3")
    assert identity.unseal(sealed, b"round 3") == b"share"
    with pytest.raises(SealError):
        identity.unseal(sealed, b"round 4")


def test_nothing_secret_is_printed_or_pickled(folder: Path) -> None:
    """repr and str show no secret; pickling and copying raise."""
    identity = Identity.load(folder)
    for thing in (identity, identity.onion):
        assert "redacted" in repr(thing)
        assert not any(secret in f"{thing!r} {thing!s}" for secret in secrets_in(folder))
        for leak in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds secrets"):
                leak(thing)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"layers": 0},
        {"layers": "4096"},
        {"layers": 1 << 40},
        {"ethereum": "00" * 32},
        {"ethereum": "ff" * 32},
        {"sealing": "00" * 31},
        {"onion": "secret!!"},
        {"onion": 5},
        {"extra": 1},
    ],
)
def test_unusable_contents_are_refused_without_showing_them(folder: Path, change: dict[str, Any]) -> None:
    """A damaged identity file is a KeysError that names the file and quotes nothing of it."""
    path = folder / FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeysError, match="not an identity file") as caught:
        Identity.load(folder)
    assert caught.value.__cause__ is None
    assert not any(secret in str(caught.value) for secret in secrets_in(folder) if isinstance(secret, str))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 4000, b'{"version": 1'])
def test_arbitrary_bytes_are_refused(folder: Path, data: bytes) -> None:
    """No file content fails in another way."""
    (folder / FILE_NAME).write_bytes(data)
    with pytest.raises(KeysError, match="not an identity file"):
        Identity.load(folder)


def test_loading_never_creates(tmp_path: Path) -> None:
    """load refuses a folder without an identity: a lost key is not silently replaced."""
    with pytest.raises(KeysError, match="cannot read"):
        Identity.load(tmp_path)


def test_every_layer_is_revealed_once_from_tip_to_core() -> None:
    """Each reveal is the keccak preimage of the anchor and the next anchor; after the last, a clear refusal."""
    onion = Onion(SEED, 20)
    anchor = onion.tip
    for _ in range(20):
        layer = onion.reveal(anchor)
        assert keccak(layer) == anchor
        anchor = layer
    with pytest.raises(KeysError, match="all 20 layers"):
        onion.reveal(anchor)


def test_a_repeated_reveal_is_the_same() -> None:
    """A message executed twice reveals the same layer."""
    onion = Onion(SEED, 20)
    assert onion.reveal(onion.tip) == onion.reveal(onion.tip)


def test_a_foreign_anchor_is_refused() -> None:
    """The onion never answers an anchor that is not its own."""
    with pytest.raises(KeysError, match="not of this site"):
        Onion(SEED, 20).reveal(Onion(bytes(32), 20).tip)
