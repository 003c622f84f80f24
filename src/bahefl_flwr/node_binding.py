"""What ties a Flower node to a ledger account: the account's signature over the key that the SuperNode authenticates with.

The SuperLink vouches for the node's key, the signature for the account; so nobody answers in another site's name. Pure.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from bahefl_flwr.errors import KeysError
from bahefl_flwr.store.signing import BadSignature, signer


def new_node_key() -> tuple[bytes, bytes]:
    """A new key for a SuperNode, ECDSA on P-384: OpenSSH's private and public form, as Flower takes them.

    Not encrypted, since flower-supernode cannot ask for a passphrase; it opens nothing but the connection to the SuperLink.
    """
    key = generate_private_key(SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public + b"\n"


def binding_text(node_key: bytes, chain_id: int, contract: str) -> bytes:
    """What a site signs: that this node answers for its account, on one contract.

    Args:
      node_key: the SuperNode's public key, in OpenSSH's form or as PEM, as Flower's grid gives it.

    Raises:
      KeysError: it is no public key.
    """
    try:
        loaded = load_ssh_public_key(node_key) if node_key.startswith(b"ecdsa-") else load_pem_public_key(node_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeysError(f"the SuperNode's public key cannot be read: {error}") from None
    digest = hashlib.sha256(loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return f"bahefl node binding, version 1\nnode key sha256 {digest}\nledger {chain_id} {contract.lower()}\n".encode()


def expect_binding(node_key: bytes, chain_id: int, contract: str, address: str, signature: bytes) -> None:
    """Check that an account answers through this node by its own will.

    Raises:
      KeysError: the signature is missing, of another node, ledger or account.
    """
    if not signature:
        raise KeysError(
            f"{address} names no key of its SuperNode: start it with --auth-supernode-private-key HOME/supernode.key and "
            "site-home=HOME, both as `bahefl site init` made them"
        )
    try:
        found = signer(binding_text(node_key, chain_id, contract), signature)
    except BadSignature as error:
        raise KeysError(f"{address}: {error}") from None
    if found != address.lower():
        raise KeysError(
            f"{address} is not bound to the key that this node authenticates with: it is another site's SuperNode, or its "
            "supernode.key was exchanged; start it with the key in the site's home"
        )
