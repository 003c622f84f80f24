"""Algebra of key files, under generated secrets, bindings and damage."""

import tempfile
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from bahefl_flwr.errors import KeysError
from bahefl_flwr.key_files import THROW_AWAY, Binding, Passphrase, Protection, ScryptCost, SecretKind, _file_bytes, read_secret

# The real cost is in tests/unit and tests/vectors; here it would take minutes.
CHEAP = ScryptCost(log2_n=1, r=1)
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: f"0x{raw.hex()}")
uint64 = st.integers(0, 2**64 - 1)
bindings = st.builds(Binding, kind=st.sampled_from(SecretKind), site=addresses, chain_id=uint64, contract=addresses, epoch=uint64)
texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=40, max_size=60)
protections = st.one_of(st.just(THROW_AWAY), texts.map(Passphrase))
contents = st.binary(min_size=1, max_size=300)
salts = st.binary(min_size=32, max_size=32)


def read(data: bytes, protection: Protection, binding: Binding) -> bytes:
    """What a file of these bytes holds."""
    with tempfile.TemporaryDirectory() as folder:  # mode 0700
        path = Path(folder) / "share.key"
        path.touch(mode=0o600)
        path.write_bytes(data)
        return read_secret(path, protection, binding)


def read_or_none(data: bytes, protection: Protection, binding: Binding) -> bytes | None:
    """The same, or None where it is refused with the one error that may be raised."""
    try:
        return read(data, protection, binding)
    except KeysError:
        return None


@given(contents, protections, bindings, salts)
def test_every_secret_comes_back(secret: bytes, protection: Protection, binding: Binding, salt: bytes) -> None:
    """Reading is the inverse of writing, for every passphrase and binding."""
    assert read(_file_bytes(secret, protection, binding, salt=salt, cost=CHEAP), protection, binding) == secret


@given(contents, protections, bindings, salts, st.data())
def test_any_altered_byte_is_refused(
    secret: bytes, protection: Protection, binding: Binding, salt: bytes, data: st.DataObject
) -> None:
    """Whatever one byte is changed to."""
    good = _file_bytes(secret, protection, binding, salt=salt, cost=CHEAP)
    at = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    assume(value != good[at])
    assert read_or_none(good[:at] + bytes([value]) + good[at + 1 :], protection, binding) is None


@given(contents, protections, bindings, bindings)
def test_a_file_opens_under_no_other_binding(secret: bytes, protection: Protection, written: Binding, wanted: Binding) -> None:
    """Two bindings never have the same encoding."""
    assume(written != wanted)
    assert read_or_none(_file_bytes(secret, protection, written, salt=bytes(32), cost=CHEAP), protection, wanted) is None


@given(st.binary(max_size=400), st.sampled_from([b"", b"bahefl key file 1, THROW-AWAY: not encrypted\n"]), bindings)
def test_arbitrary_bytes_are_refused(data: bytes, start: bytes, binding: Binding) -> None:
    """No content fails in another way than with a KeysError."""
    assert read_or_none(start + data, THROW_AWAY, binding) is None
