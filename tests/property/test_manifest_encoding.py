"""Algebra of the manifest encoding, under generated inputs."""

from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import MAX_PART_BYTES, Manifest, PartRef

uint64 = st.integers(0, 2**64 - 1)
manifests = st.builds(
    Manifest,
    run=st.binary(min_size=32, max_size=32),
    round=uint64,
    site=st.from_regex(r"0x[0-9a-fA-F]{40}", fullmatch=True),
    epoch=uint64,
    kind=st.sampled_from(ObjectKind),
    parts=st.lists(
        st.builds(PartRef, digest=st.binary(min_size=32, max_size=32), size_bytes=st.integers(1, MAX_PART_BYTES)),
        min_size=1,
        max_size=40,
    ).map(tuple),
)


def decoded_or_none(data: bytes) -> Manifest | None:
    """The manifest of `data`, or None where it is refused with the one error that may be raised."""
    try:
        return Manifest.decode(data)
    except ObjectCorrupt:
        return None


@given(manifests)
def test_decoding_inverts_encoding(manifest: Manifest) -> None:
    """Every manifest reads back as itself."""
    assert Manifest.decode(manifest.encode()) == manifest


@given(manifests, manifests)
def test_equal_encodings_mean_equal_manifests(first: Manifest, second: Manifest) -> None:
    """Two different manifests never share an encoding."""
    assert (first.encode() == second.encode()) == (first == second)


@given(manifests, st.data())
def test_an_altered_encoding_is_refused_or_means_something_else(manifest: Manifest, data: st.DataObject) -> None:
    """There is no second spelling: altered bytes are refused, or are the one encoding of another manifest."""
    encoded = manifest.encode()
    start = data.draw(st.integers(0, len(encoded)))
    end = data.draw(st.integers(start, min(len(encoded), start + 9)))
    altered = encoded[:start] + data.draw(st.binary(max_size=9)) + encoded[end:]
    found = decoded_or_none(altered)
    assert found is None or found.encode() == altered
    assert altered == encoded or found != manifest


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_object_corrupt(data: bytes) -> None:
    """No input makes the parser fail in another way."""
    found = decoded_or_none(data)
    assert found is None or found.encode() == data
