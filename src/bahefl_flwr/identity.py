"""A site's long-term secrets: Ethereum key, X25519 key and hash-onion seed, in one key file.

The secrets are used here and stay here: no other module takes them as bytes. Key shares of an epoch are not long-term.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from eth_hash.auto import keccak

from bahefl_flwr.errors import KeysError, SettingsError
from bahefl_flwr.key_files import THROW_AWAY, Binding, Protection, SecretKind, create_secret, read_secret, stated_site
from bahefl_flwr.sealing import unseal

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

FILE_NAME = "identity.key"
DEFAULT_LAYERS = 4096
_MAX_LAYERS = 1 << 20
# The order of secp256k1: Ethereum keys are 1 to one less than it.
_SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_FIELDS = frozenset(("version", "ethereum", "sealing", "onion", "layers"))


class _Secret:
    """Base of what must not be printed, copied to another process, or compared in logs."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and is not pickled or copied; load it where it is needed")


class Onion(_Secret):
    """A hash onion: `layers` preimages, revealed from the outside in, one per attestation.

    The tip is anchored on the ledger; `keccak256(layer) == anchor` proves a reveal, which then is the next anchor. Layers are
    recomputed from the seed on every call (4096 layers: 32 ms), so that nothing needs storing and a repeated reveal is the same.
    """

    __slots__ = ("_seed", "layers")

    def __init__(self, seed: bytes, layers: int) -> None:
        self._seed = seed
        self.layers = layers

    def __repr__(self) -> str:
        return f"<Onion layers={self.layers} redacted>"

    @property
    def tip(self) -> bytes:
        """Outermost hash, 32 bytes: the anchor to register."""
        layer = self._core()
        for _ in range(self.layers):
            layer = keccak(layer)
        return layer

    def reveal(self, anchor: bytes) -> bytes:
        """The layer (32 bytes) whose keccak256 is `anchor`, as the ledger holds it now.

        Raises:
          KeysError: every layer is used up, or the anchor belongs to another onion.
        """
        layer = self._core()
        if layer == anchor:
            raise KeysError(f"all {self.layers} layers of the hash onion are revealed; make a new identity and register it")
        for _ in range(self.layers):
            outer = keccak(layer)
            if outer == anchor:
                return layer
            layer = outer
        raise KeysError(f"anchor {anchor.hex()} is not of this site's hash onion; the ledger holds another identity's")

    def _core(self) -> bytes:
        return HKDFExpand(algorithm=SHA256(), length=32, info=b"bahefl onion v1 core").derive(self._seed)


class Identity(_Secret):
    """A site's long-term secrets, loaded from its folder.

    Attributes:
      folder: where its file lies.
      onion: the hash onion of its attestations.
      protection: what its file opens with, and the site's other key files too: they are encrypted if and only if it is.
    """

    __slots__ = ("_account", "_ethereum", "_sealing", "folder", "onion", "protection")

    def __init__(self, folder: Path, *, ethereum: bytes, sealing: bytes, onion: Onion, protection: Protection) -> None:
        self.folder = folder
        self.onion = onion
        self.protection = protection
        self._ethereum = ethereum
        self._sealing = X25519PrivateKey.from_private_bytes(sealing)
        self._account: LocalAccount | None = None

    @classmethod
    def create_or_load(cls, folder: Path | str, passphrase: Protection = THROW_AWAY) -> Self:
        """The identity in `folder`, made first (folder 0700, file 0600) where there is none; two processes may call it at once.

        Args:
          folder: made if missing.
          passphrase: a deployment's passphrase; without it, throw-away keys for a simulation, which no passphrase opens.

        Raises:
          KeysError: as `load`, or the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeysError(f"cannot create an identity in {folder}: {error}; name a folder this user may write") from error
        if not (folder / FILE_NAME).exists():
            fields = _fresh()
            create_secret(folder / FILE_NAME, _encode(fields), passphrase, _binding(_address(fields["ethereum"])))
        return cls.load(folder, passphrase)

    @classmethod
    def load(cls, folder: Path | str, passphrase: Protection = THROW_AWAY) -> Self:
        """The identity in `folder`.

        Raises:
          KeysError: no file, a file or folder that others may read (with the command that mends it), a wrong, missing or
            needless passphrase, or unusable contents.
        """
        folder = Path(folder)
        path = folder / FILE_NAME
        stated = stated_site(path)
        fields = _decode(read_secret(path, passphrase, _binding(stated)), path)
        if _address(fields["ethereum"]) != stated:
            raise KeysError(f"{path} names {stated} but holds the key of another address: restore it from a backup")
        return cls(
            folder,
            ethereum=fields["ethereum"],
            sealing=fields["sealing"],
            onion=Onion(fields["onion"], fields["layers"]),
            protection=passphrase,
        )

    def __repr__(self) -> str:
        return f"<Identity {self.folder} redacted>"

    @property
    def account(self) -> LocalAccount:
        """The Ethereum account that signs this site's transactions."""
        from eth_account import Account  # 0.8 s to import, and not every message signs

        if self._account is None:
            self._account = Account.from_key(self._ethereum)
        return self._account

    @property
    def address(self) -> str:
        """Checksummed Ethereum address."""
        return str(self.account.address)

    def sign_text(self, text: bytes) -> bytes:
        """Sign a text for a service that knows this account (EIP-191): r, s and v, 65 bytes.

        Never a transaction: what is signed begins with a byte that none begins with.
        """
        digest = keccak(b"\x19Ethereum Signed Message:\n%d%b" % (len(text), text))
        signature = PrivateKey(self._ethereum).sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes((27 + signature[64],))

    @property
    def sealing_public(self) -> bytes:
        """Raw X25519 public key, 32 bytes: the `sealingKey` to register."""
        return self._sealing.public_key().public_bytes_raw()

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Open what was sealed to this site in `context`. Raises SealError as `sealing.unseal`."""
        return unseal(sealed, self.address, self._sealing, context)


def _fresh() -> dict[str, Any]:
    return {
        "ethereum": _ethereum_key(),
        "sealing": secrets.token_bytes(32),
        "onion": secrets.token_bytes(32),
        "layers": DEFAULT_LAYERS,
    }


def _ethereum_key() -> bytes:
    return (1 + secrets.randbelow(_SECP256K1_ORDER - 1)).to_bytes(32, "big")


def _address(ethereum: bytes) -> str:
    """Lower-case Ethereum address of a private key, without the 0.8 s that importing eth_account takes."""
    return f"0x{keccak(PublicKey.from_valid_secret(ethereum).format(compressed=False)[1:])[-20:].hex()}"


def expect_well_typed(address: str) -> None:
    """Compare an address's upper and lower case with its digits (EIP-55); in lower case alone nothing can be told.

    Args:
      address: 0x and 40 hexadecimal digits.

    Raises:
      SettingsError: they contradict each other.
    """
    from eth_utils.address import to_checksum_address  # 0.2 s to import, and no message needs it

    if address not in (address.lower(), to_checksum_address(address)):
        raise SettingsError(f"the address {address} is mistyped: its upper and lower case do not fit its digits (EIP-55)")


def _binding(address: str) -> Binding:
    return Binding(kind=SecretKind.IDENTITY, site=address)


def _encode(fields: dict[str, Any]) -> bytes:
    """The secret of the key file; `key_files` encrypts it."""
    written = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
    return json.dumps({"version": 1} | written, indent=1).encode("ascii")


def _decode(data: bytes, path: Path) -> dict[str, Any]:
    # `from None` throughout: a JSON or hex error would carry the secret text into logs.
    try:
        written = json.loads(data)
        layers = written["layers"]
        if written.keys() != _FIELDS or written["version"] != 1 or type(layers) is not int or not 0 < layers <= _MAX_LAYERS:
            raise ValueError
        fields = {name: bytes.fromhex(written[name]) for name in ("ethereum", "sealing", "onion")}
        if any(len(secret) != 32 for secret in fields.values()):
            raise ValueError
        if not 0 < int.from_bytes(fields["ethereum"], "big") < _SECP256K1_ORDER:
            raise ValueError
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        raise KeysError(f"{path} holds no identity of version 1; restore it from a backup, or move it away") from None
    return fields | {"layers": layers}
