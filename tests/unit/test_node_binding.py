"""A Flower node is bound to its ledger account by its SuperNode's key: nobody answers in another site's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from bahefl_flwr.errors import KeysError
from bahefl_flwr.identity import Identity
from bahefl_flwr.node_binding import binding_text, expect_binding, new_node_key

CHAIN, CONTRACT = 7, "0x" + "aB" * 20
_PRIVATE, NODE_KEY = new_node_key()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A site with keys of its own."""
    return Identity.create_or_load(tmp_path_factory.mktemp("site"))


def as_flower_gives_it(node_key: bytes) -> bytes:
    """PEM, as the SuperLink keeps the key that was registered."""
    return load_ssh_public_key(node_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_the_key_is_one_that_flower_takes() -> None:
    """OpenSSH's form, ECDSA on P-384, without a passphrase; private and public part belong together."""
    key = load_ssh_private_key(_PRIVATE, password=None)
    assert key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n" == NODE_KEY
    assert NODE_KEY.startswith(b"ecdsa-sha2-nistp384 ")


def test_a_site_is_bound_to_its_own_node(site: Identity) -> None:
    """What it signed over its key file holds for the key as the SuperLink gives it."""
    signature = site.sign_text(binding_text(NODE_KEY, CHAIN, CONTRACT))
    expect_binding(as_flower_gives_it(NODE_KEY), CHAIN, CONTRACT, site.address, signature)


def test_another_node_is_refused(site: Identity) -> None:
    """A signature copied from an honest site's greeting does not fit the copier's key."""
    signature = site.sign_text(binding_text(NODE_KEY, CHAIN, CONTRACT))
    with pytest.raises(KeysError, match=f"{site.address} is not bound to the key"):
        expect_binding(as_flower_gives_it(new_node_key()[1]), CHAIN, CONTRACT, site.address, signature)


@pytest.mark.parametrize(("chain", "contract"), [(8, CONTRACT), (CHAIN, "0x" + "ac" * 20)])
def test_a_binding_of_another_ledger_is_refused(site: Identity, chain: int, contract: str) -> None:
    """Signatures of one federation are of no use in the next."""
    signature = site.sign_text(binding_text(NODE_KEY, chain, contract))
    with pytest.raises(KeysError, match="is not bound"):
        expect_binding(as_flower_gives_it(NODE_KEY), CHAIN, CONTRACT, site.address, signature)


def test_another_account_is_refused(site: Identity, tmp_path: Path) -> None:
    """A site cannot lend its node to another one's address."""
    signature = Identity.create_or_load(tmp_path).sign_text(binding_text(NODE_KEY, CHAIN, CONTRACT))
    with pytest.raises(KeysError, match="is not bound"):
        expect_binding(as_flower_gives_it(NODE_KEY), CHAIN, CONTRACT, site.address, signature)


@pytest.mark.parametrize("signature", [b"", bytes(65), b"\xff" * 65, b"\x01" * 64])
def test_no_signature_is_refused(site: Identity, signature: bytes) -> None:
    """Whatever bytes stand there."""
    with pytest.raises(KeysError, match=site.address):
        expect_binding(as_flower_gives_it(NODE_KEY), CHAIN, CONTRACT, site.address, signature)


@pytest.mark.parametrize("node_key", [b"", b"-----BEGIN nonsense", b"ecdsa-sha2-nistp384 AAAA"])
def test_a_node_without_a_readable_key_is_refused(site: Identity, node_key: bytes) -> None:
    """As where the SuperLink authenticates nobody."""
    with pytest.raises(KeysError, match="public key cannot be read"):
        expect_binding(node_key, CHAIN, CONTRACT, site.address, bytes(65))
