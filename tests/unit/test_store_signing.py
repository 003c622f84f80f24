"""Claims about the signature that every request to a served store carries."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from bahefl_flwr.identity import Identity
from bahefl_flwr.store.signing import BadSignature, Claim, authorization, check, read_claim, signed_text

BODY = hashlib.sha256(b"body").digest()
PATH = "/v1/objects/bafy"
NOW = 1_800_000_000
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.create_or_load(tmp_path_factory.mktemp("site") / "identity")


@pytest.fixture
def header(identity: Identity) -> str:
    """A header that stands for one PUT."""
    return authorization(identity.sign_text, identity.address, "PUT", PATH, BODY, NOW)


def test_a_signed_request_names_its_account(identity: Identity, header: str) -> None:
    """What an account signs is accepted, as that account's."""
    assert check(read_claim(header), "PUT", PATH, NOW, 60) == identity.address.lower()


def test_the_signature_is_the_one_ethereum_wallets_make(identity: Identity) -> None:
    """EIP-191: any wallet library verifies it, and none takes it for a transaction's."""
    text = signed_text("PUT", PATH, BODY, NOW)
    assert Account.recover_message(encode_defunct(text), signature=identity.sign_text(text)) == identity.address


def test_a_release_1_request_stays_valid(tmp_path: Path) -> None:
    """The text that is signed is part of the protocol."""
    assert signed_text("PUT", PATH, bytes(32), 17) == (
        b"bahefl store request, version 1\nPUT /v1/objects/bafy\nbody sha256 " + b"0" * 64 + b"\nunix time 17\n"
    )


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("PUT", PATH + "x"), ("PUT", "/v1/missing")])
def test_a_signature_is_for_one_method_and_path(header: str, method: str, path: str) -> None:
    """A request that was overheard gives no right to another one."""
    with pytest.raises(BadSignature, match="signature of this request"):
        check(read_claim(header), method, path, NOW, 60)


@pytest.mark.parametrize("position", range(8, 240, 3))
def test_every_character_of_the_header_counts(header: str, position: int) -> None:
    """Another address, time, digest or signature makes another request: refused, whatever is changed."""
    changed = header[:position] + ("1" if header[position] != "1" else "2") + header[position + 1 :]
    with pytest.raises(BadSignature):
        check(read_claim(changed), "PUT", PATH, NOW, 1e12)


@pytest.mark.parametrize(("late", "says"), [(61, "61 s behind the store's"), (-61, "61 s ahead of the store's")])
def test_a_wrong_clock_is_said_in_plain_words(header: str, late: int, says: str) -> None:
    """How far, in which direction, how far is allowed, and what to do."""
    with pytest.raises(BadSignature, match=rf"{says}, at most 60 s are allowed: set both by NTP"):
        check(read_claim(header), "PUT", PATH, NOW + late, 60)


@pytest.mark.parametrize("late", [-60, 0, 60])
def test_clocks_may_differ_by_the_window(header: str, late: int) -> None:
    """The window is open at both ends."""
    assert check(read_claim(header), "PUT", PATH, NOW + late, 60)


def test_a_signature_has_no_twin(identity: Identity, header: str) -> None:
    """The other s of the same signature is refused: one request, one header."""
    claim = read_claim(header)
    s = ORDER - int.from_bytes(claim.signature[32:64], "big")
    twin = claim.signature[:32] + s.to_bytes(32, "big") + bytes((27 + 28 - claim.signature[64],))
    with pytest.raises(BadSignature, match="one form"):
        check(Claim(address=claim.address, time=NOW, body=BODY, signature=twin), "PUT", PATH, NOW, 60)


@pytest.mark.parametrize("signature", [bytes(64) + b"\x1b", b"\xff" * 32 + b"\x01" * 32 + b"\x1b", bytes(64) + b"\x00"])
def test_no_signature_at_all_is_refused(identity: Identity, signature: bytes) -> None:
    """Numbers that are no point of the curve belong to nobody."""
    with pytest.raises(BadSignature):
        check(Claim(address=identity.address, time=NOW, body=BODY, signature=signature), "PUT", PATH, NOW, 60)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic x",
        "Bahefl1 ",
        "Bahefl2 0x",
        "Bahefl1 0x12 1 00 00",
        "Bahefl1 " + "0x" + "1" * 40 + " \u0661 " + "0" * 64 + " " + "0" * 130,
    ],
)
def test_another_header_is_told_how_to_sign(header: str) -> None:
    """Nothing but the one form is read, ASCII digits only."""
    with pytest.raises(BadSignature, match="not signed as this store asks"):
        read_claim(header)
