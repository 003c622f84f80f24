"""A recipient finds every altered byte of a sealed object, and a sender that cheats."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr import sealing
from bahefl_flwr.errors import SealError
from bahefl_flwr.sealing import seal, unseal

ALICE, BOB = "0x" + "1" * 40, "0x" + "2" * 40
KEYS = {address: X25519PrivateKey.generate() for address in (ALICE, BOB)}
RECIPIENTS = {address: key.public_key().public_bytes_raw() for address, key in KEYS.items()}
CONTEXT = b"share from site 1, round 17"


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_byte_counts(mask: int) -> None:
    """One bit flipped anywhere (magic, version, count, keys, other recipients' entries, body, tag) is refused.

    That holds for the top bit of the ephemeral key too, which X25519 itself ignores.
    """
    sealed = seal(b"secret", RECIPIENTS, CONTEXT)
    for position in range(len(sealed)):
        altered = sealed[:position] + bytes([sealed[position] ^ mask]) + sealed[position + 1 :]
        with pytest.raises(SealError):
            unseal(altered, BOB, KEYS[BOB], CONTEXT)


def test_every_truncation_is_refused() -> None:
    """A sealed object cut at any length is refused, and so is one with a byte appended."""
    sealed = seal(b"secret", RECIPIENTS, CONTEXT)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            unseal(sealed[:length], BOB, KEYS[BOB], CONTEXT)
    with pytest.raises(SealError, match="altered"):
        unseal(sealed + b"\0", BOB, KEYS[BOB], CONTEXT)


def test_recipients_out_of_order_are_refused() -> None:
    """The table of recipients has one order, so that one sealed object has one digest."""
    sealed = seal(b"secret", RECIPIENTS, CONTEXT)
    exchanged = sealed[:70] + sealed[138:206] + sealed[70:138] + sealed[206:]
    with pytest.raises(SealError, match="out of order"):
        unseal(exchanged, BOB, KEYS[BOB], CONTEXT)


def test_a_sender_that_wraps_another_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that gives one recipient another content key is caught by the commitment, before any plaintext is shown."""
    honest = sealing._wrap

    def cheat(content_key: bytes, ephemeral: X25519PrivateKey, recipient: bytes, address: str, context: bytes) -> bytes:
        return honest(bytes(32) if address == BOB else content_key, ephemeral, recipient, address, context)

    monkeypatch.setattr(sealing, "_wrap", cheat)
    sealed = seal(b"secret", RECIPIENTS, CONTEXT)
    assert unseal(sealed, ALICE, KEYS[ALICE], CONTEXT) == b"secret"
    with pytest.raises(SealError, match="cheats"):
        unseal(sealed, BOB, KEYS[BOB], CONTEXT)
