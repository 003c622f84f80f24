"""Claims about CIDs as text: one form, and every other one refused."""

from __future__ import annotations

import pytest

from bahefl_flwr.store import manifest_cid, part_cid
from bahefl_flwr.store.dag_cbor import DAG_CBOR, RAW, CborError, Link

DIGEST = bytes(range(32))


@pytest.mark.parametrize("link", [Link(RAW, DIGEST), Link(DAG_CBOR, DIGEST), Link(RAW, b"\xff" * 32)])
def test_a_name_is_read_as_it_was_written(link: Link) -> None:
    """parse is the inverse of str."""
    assert Link.parse(str(link)) == link


def named(text: str) -> Link | None:
    """What a text names, if anything."""
    try:
        return Link.parse(text)
    except CborError:
        return None


@pytest.mark.parametrize("position", range(59))
def test_no_other_text_names_the_same_object(position: int) -> None:
    """One exchanged character is another object or none: also in the last one, whose low bits name nothing."""
    text = part_cid(DIGEST)
    others = {text[:position] + character + text[position + 1 :] for character in "abcdefghijklmnopqrstuvwxyz234567"} - {text}
    assert Link(RAW, DIGEST) not in {named(other) for other in others}


@pytest.mark.parametrize(
    "text",
    ["", "..", "bafy", manifest_cid(DIGEST).upper(), manifest_cid(DIGEST) + "a", manifest_cid(DIGEST)[:-1],
     "z" + part_cid(DIGEST)[1:], part_cid(DIGEST) + "\n", "../" + part_cid(DIGEST)[3:]],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    """No path leaves the folder of objects."""
    with pytest.raises(CborError):
        Link.parse(text)
