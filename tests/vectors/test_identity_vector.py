"""Fixed secrets and what must come of them in every release."""

from pathlib import Path

from bahefl_flwr.identity import FILE_NAME, Identity

HEAD = (
    b"bahefl key file 1, THROW-AWAY: not encrypted\n\x01"
    + bytes.fromhex("1a642f0e3c3af545e7acbd38b07251b3990914f1")
    + bytes(36)
    + bytes.fromhex("80e6d9792a7aeb4cde59230bf8b5f360556c9c75735baa33a41dd040c8c38127")
)
SECRET = """{
 "version": 1,
 "ethereum": "0101010101010101010101010101010101010101010101010101010101010101",
 "sealing": "0202020202020202020202020202020202020202020202020202020202020202",
 "onion": "0303030303030303030303030303030303030303030303030303030303030303",
 "layers": 64
}"""
SEALED = bytes.fromhex(
    "4241485301010dec9878c497d997134efedf21a20614a0b282b96ab80ee111b547f76e90291454b68160b35a6cbe61e8f455ef5c571355151ee5"
    "0315647ba2d6bcd0346888d91a642f0e3c3af545e7acbd38b07251b3990914f18fba429d4a207dec5981f48e0dff8c4b88ae200d3467aad79afb"
    "27dc3e7082466bf590fcbe76d3fb137cff0f5b2d759ec041d2778af74167334f8ea843e70656cc20366349186691b0053b8a18eec959d98ec9"
)


def test_a_release_1_identity_is_the_same_site(tmp_path: Path) -> None:
    """An identity file of the first release gives the same address, keys and onion tip, and opens what was sealed to it."""
    tmp_path.chmod(0o700)
    (tmp_path / FILE_NAME).write_bytes(HEAD + SECRET.encode())
    (tmp_path / FILE_NAME).chmod(0o600)
    identity = Identity.load(tmp_path)
    assert identity.address == "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
    assert identity.sealing_public.hex() == "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59"
    assert identity.onion.tip.hex() == "5c40474a764ff18b77f75a218f2fa67debcdb1a63b39f2ccc84a3aa670d6b82f"
    assert identity.unseal(SEALED, b"vector") == b"sealed by release 1"
