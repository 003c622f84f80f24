"""Claims about manifests built in memory."""

import dataclasses
from typing import Any

import pytest

from bahefl_flwr.errors import ObjectCorrupt, StoreError
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import MAX_PART_BYTES, Manifest, PartRef, manifest_for
from bahefl_flwr.store.dag_cbor import RAW, Link, encode

SITE = "0x52908400098527886E0F7030069857D2E4169EE7"
FIELDS: dict[str, Any] = {"run": bytes(32), "round": 7, "site": SITE, "epoch": 2, "kind": ObjectKind.UPDATE}
WIRE: dict[str, Any] = {
    "v": 1, "run": bytes(32), "round": 7, "site": SITE, "epoch": 2, "kind": "update",
    "parts": [Link(RAW, bytes(32))], "sizes": [5],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("run", b"\1" * 32),
        ("round", 8),
        ("site", SITE.lower()),
        ("epoch", 3),
        ("kind", ObjectKind.AGGREGATE),
        ("parts", "one more"),
    ],
)
def test_digest_covers_every_field(field: str, other: Any) -> None:
    """Changing any field of a manifest changes its digest, so no object passes for another."""
    manifest = manifest_for([b"part"], **FIELDS)
    value: Any = manifest.parts * 2 if field == "parts" else other
    assert dataclasses.replace(manifest, **{field: value}).digest != manifest.digest


def test_parts_are_consumed_one_at_a_time() -> None:
    """Building a manifest from a generator never asks for a part before the last one is hashed and forgotten."""
    alive: list[bytes] = []

    def parts() -> Any:
        for index in range(50):
            alive[:] = [bytes([index]) * 10]
            yield alive[0]

    manifest = manifest_for(parts(), **FIELDS)
    assert len(manifest.parts) == 50
    assert manifest.size_bytes == 500


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("run", bytes(31)), ("round", -1), ("round", 1 << 64), ("epoch", -1), ("site", "site-1"), ("site", SITE + "0"),
        ("site", SITE + "\n"), ("parts", ()), ("version", 2),
    ],
)  # fmt: skip
def test_a_field_out_of_range_is_refused(field: str, bad: Any) -> None:
    """A manifest that could not be read back is never built."""
    manifest = manifest_for([b"part"], **FIELDS)
    with pytest.raises(StoreError):
        dataclasses.replace(manifest, **{field: bad})


@pytest.mark.parametrize("parts", [[], [b""], [bytes(MAX_PART_BYTES + 1)]])
def test_empty_and_oversize_parts_are_refused(parts: list[bytes]) -> None:
    """Objects have at least one part, and every part 1 byte to 1 MiB."""
    with pytest.raises(StoreError):
        manifest_for(parts, **FIELDS)


def test_a_manifest_larger_than_one_block_is_refused() -> None:
    """More parts than one 1 MiB manifest can name are refused when it is encoded."""
    ref = PartRef(digest=bytes(32), size_bytes=1)
    with pytest.raises(StoreError, match="too many"):
        Manifest(parts=(ref,) * 30_000, **FIELDS).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, "version 2"),
        ({"extra": 1}, "keys"),
        ({"run": "text"}, "'run' is a str"),
        ({"run": bytes(33)}, "run digest"),
        ({"round": b"7"}, "'round' is a bytes"),
        ({"site": "someone"}, "not an address"),
        ({"kind": "virus"}, "unknown kind"),
        ({"parts": [bytes(32)]}, "raw CID"),
        ({"parts": [Link(0x71, bytes(32))]}, "raw CID"),
        ({"parts": []}, "0 parts but 1 sizes"),
        ({"sizes": [5, 5]}, "1 parts but 2 sizes"),
        ({"sizes": ["5"]}, "not a number"),
        ({"sizes": [0]}, "holds 1.."),
        ({"sizes": [MAX_PART_BYTES + 1]}, "holds 1.."),
    ],
)
def test_each_check_of_decode_refuses(change: dict[str, Any], reason: str) -> None:
    """Well-formed DAG-CBOR that is no manifest is refused as ObjectCorrupt, with the reason and the CID."""
    with pytest.raises(ObjectCorrupt, match=r"^bafyrei\w+ is not a manifest: .*" + reason):
        Manifest.decode(encode(WIRE | change))


def test_a_missing_key_is_refused() -> None:
    """No field has a default on the wire."""
    for key in WIRE:
        with pytest.raises(ObjectCorrupt, match="keys"):
            Manifest.decode(encode({name: value for name, value in WIRE.items() if name != key}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xa0",  # empty map
        b"\xbf\xff",  # map of indefinite length
        b"\x9b" + b"\xff" * 8,  # list of 2**64-1 items
        b"\x5b" + b"\xff" * 8,  # byte string of 2**64-1 bytes
        b"\x81" * 1000,  # nested a thousand deep
        b"\x18\x05",  # 5 in two bytes
        b"\xf5",  # true
        b"\xfb" + bytes(8),  # a float
        b"\xd8\x2a\x58\x25\x00" + b"\x01\x70\x12\x20" + bytes(32),  # a link of another codec
        b"\xa2\x61b\x00\x61a\x00",  # keys out of order
        b"\xa2\x61a\x00\x61a\x00",  # a key twice
        b"\xa1\x00\x00",  # a key that is no text
        b"\x61\xff",  # not UTF-8
        bytes((1 << 20) + 1),  # longer than a manifest may be
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    """Bytes that are not canonical DAG-CBOR are refused without believing any length they claim."""
    with pytest.raises(ObjectCorrupt):
        Manifest.decode(data)


def test_bytes_after_the_manifest_are_refused() -> None:
    """A manifest with one byte appended is another object, and no manifest."""
    with pytest.raises(ObjectCorrupt, match="follow the end"):
        Manifest.decode(encode(WIRE) + b"\0")
