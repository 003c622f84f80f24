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
from bahefl_flwr.key_files import THROW_AWAY, Binding, Passphrase, SecretKind, read_secret, stated_site, write_secret
from bahefl_flwr.sealing import seal

SEED = bytes(range(32))
PASSPHRASE = Passphrase("correct horse battery")
CREATE = "import sys; from bahefl_flwr.identity import Identity as I; print(I.create_or_load(sys.argv[1]).sealing_public.hex())"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an identity was made."""
    Identity.create_or_load(tmp_path / "keys")
    return tmp_path / "keys"


def content_of(folder: Path) -> dict[str, Any]:
    """What the identity's key file holds."""
    path = folder / FILE_NAME
    secret = read_secret(path, THROW_AWAY, Binding(kind=SecretKind.IDENTITY, site=stated_site(path)))
    return dict(json.loads(secret))


def put_content(folder: Path, content: bytes) -> None:
    """Give the identity's key file another content, under the same binding."""
    path = folder / FILE_NAME
    write_secret(path, content, THROW_AWAY, Binding(kind=SecretKind.IDENTITY, site=stated_site(path)))


def secrets_in(folder: Path) -> list[str]:
    """The secret hex texts of the identity file."""
    content = content_of(folder)
    return [content[name] for name in ("ethereum", "sealing", "onion")]


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
    put_content(folder, json.dumps(content_of(folder) | change).encode())
    with pytest.raises(KeysError, match="holds no identity") as caught:
        Identity.load(folder)
    assert caught.value.__cause__ is None
    assert not any(secret in str(caught.value) for secret in secrets_in(folder) if isinstance(secret, str))


@pytest.mark.parametrize("data", [b"null", b"[]", b"{}", b"\xff", b"[" * 4000, b'{"version": 1'])
def test_arbitrary_contents_are_refused(folder: Path, data: bytes) -> None:
    """No content of the key file fails in another way."""
    put_content(folder, data)
    with pytest.raises(KeysError, match="holds no identity"):
        Identity.load(folder)


def test_a_key_of_another_address_than_the_file_names_is_refused(folder: Path, tmp_path: Path) -> None:
    """The address in the file's binding is the one its Ethereum key has."""
    Identity.create_or_load(tmp_path / "other")
    put_content(folder, json.dumps(content_of(tmp_path / "other")).encode())
    with pytest.raises(KeysError, match="holds the key of another address"):
        Identity.load(folder)


def test_a_deployment_identity_is_the_same_every_time_and_never_plain(tmp_path: Path) -> None:
    """Made with a passphrase, an identity opens with it to the same site, names its address, and shows no key in its file."""
    first = Identity.create_or_load(tmp_path / "keys", PASSPHRASE)
    again = Identity.create_or_load(tmp_path / "keys", PASSPHRASE)
    assert (first.address, first.sealing_public, first.onion.tip) == (again.address, again.sealing_public, again.onion.tip)
    assert stated_site(tmp_path / "keys" / FILE_NAME) == first.address.lower()
    assert b"ethereum" not in (tmp_path / "keys" / FILE_NAME).read_bytes()


def test_a_deployment_never_uses_throw_away_keys(folder: Path, tmp_path: Path) -> None:
    """With a passphrase, a simulation's identity is refused; without one, a deployment's; and None never means plain files."""
    Identity.create_or_load(tmp_path / "deployed", PASSPHRASE)
    with pytest.raises(KeysError, match="throw-away"):
        Identity.create_or_load(folder, PASSPHRASE)
    with pytest.raises(KeysError, match="no passphrase was given"):
        Identity.create_or_load(tmp_path / "deployed")
    with pytest.raises(KeysError, match="where a Passphrase is due"):
        Identity.create_or_load(tmp_path / "unset", None)  # type: ignore[arg-type]
    assert not list((tmp_path / "unset").iterdir())


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
