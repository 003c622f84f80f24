"""Claims about sealed objects."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr.errors import SealError
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.sealing import seal, sealing_context, unseal

ALICE, BOB, EVE = ("0x" + digit * 40 for digit in "123")
KEYS = {address: X25519PrivateKey.generate() for address in (ALICE, BOB, EVE)}
RECIPIENTS = {address: KEYS[address].public_key().public_bytes_raw() for address in (ALICE, BOB)}
CONTEXT = sealing_context(kind=ObjectKind.SHARE, run=bytes(32), round=17, epoch=3, sender=EVE)


@pytest.mark.parametrize("plaintext", [b"", b"x", bytes(1_000_000)])
def test_every_recipient_opens_the_same_plaintext(plaintext: bytes) -> None:
    """What is sealed to two sites opens for both, whatever its length; the overhead is as documented."""
    sealed = seal(plaintext, RECIPIENTS, CONTEXT)
    assert len(sealed) == len(plaintext) + 86 + 2 * 68
    assert all(unseal(sealed, address, KEYS[address], CONTEXT) == plaintext for address in RECIPIENTS)


def test_another_site_is_refused() -> None:
    """A site that is not a recipient gets an error that names it, the sender and the round."""
    sealed = seal(b"secret", RECIPIENTS, CONTEXT)
    with pytest.raises(SealError, match=f"share from {EVE}, round 17.* not addressed to {EVE}"):
        unseal(sealed, EVE, KEYS[EVE], CONTEXT)


def test_another_key_does_not_open() -> None:
    """Knowing a recipient's address is not enough: its private key is needed."""
    with pytest.raises(SealError, match="another key"):
        unseal(seal(b"secret", RECIPIENTS, CONTEXT), ALICE, KEYS[EVE], CONTEXT)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": ObjectKind.SEEDS},
        {"run": b"\1" * 32},
        {"round": 18},
        {"epoch": 4},
        {"sender": ALICE},
    ],
)
def test_another_context_does_not_open(other: dict[str, object]) -> None:
    """A sealed object is bound to its kind, run, round, epoch and sender: none can be replayed as another."""
    fields = {"kind": ObjectKind.SHARE, "run": bytes(32), "round": 17, "epoch": 3, "sender": EVE} | other
    with pytest.raises(SealError, match="another context"):
        unseal(seal(b"secret", RECIPIENTS, CONTEXT), ALICE, KEYS[ALICE], sealing_context(**fields))  # type: ignore[arg-type]


def test_two_seals_of_one_plaintext_share_no_key() -> None:
    """Sealing is randomised: nothing after the fixed start repeats, so equal plaintexts do not show."""
    first, second = (seal(bytes(64), RECIPIENTS, CONTEXT) for _ in range(2))
    assert first[6:38] != second[6:38]
    assert first[-80:] != second[-80:]


@pytest.mark.parametrize(
    "recipients",
    [
        {},
        {f"0x{index:040x}": RECIPIENTS[ALICE] for index in range(256)},
        {ALICE: bytes(32)},  # a point of low order
        {ALICE: bytes(31)},
        {"alice": RECIPIENTS[ALICE]},
        {ALICE: RECIPIENTS[ALICE], ALICE.replace("0x", ""): RECIPIENTS[BOB]},
    ],
)
def test_unusable_recipients_are_refused(recipients: dict[str, bytes]) -> None:
    """No, too many, duplicate or malformed recipients, and keys that would make the secret public, are refused."""
    with pytest.raises(SealError):
        seal(b"secret", recipients, CONTEXT)


def test_as_many_sites_as_a_roster_holds_can_be_recipients() -> None:
    """255 recipients are accepted."""
    many = {f"0x{index:040x}": RECIPIENTS[ALICE] for index in range(254)} | {BOB: RECIPIENTS[BOB]}
    assert unseal(seal(b"secret", many, CONTEXT), BOB, KEYS[BOB], CONTEXT) == b"secret"
