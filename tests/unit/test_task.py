"""What the driver takes from a site's greeting, and what it refuses to take."""

from __future__ import annotations

import pytest

from bahefl_flwr.replies import Reply
from bahefl_flwr.task import Hello

GOOD = {"address": "0x" + "Ab" * 20, "model": "0f" * 32, "num-examples": 7, "member": 3, "status": 2}


def test_good_greeting_is_read() -> None:
    """Address, model and examples are taken; what the site says of its index and its standing is not."""
    hello = Hello.read(Reply(node=5, ok=True, facts={**GOOD, "binding": "0f" * 65}))
    assert hello == Hello(node=5, address="0x" + "ab" * 20, model=b"\x0f" * 32, examples=7, binding=b"\x0f" * 65)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", None),
        ("address", "0x12"),
        ("address", "0x" + "ab " * 13 + "a"),
        ("address", "0x" + "xy" * 20),
        ("model", None),
        ("model", 7),
        ("model", "not hex"),
        ("model", "0f" * 31),
        ("num-examples", None),
        ("num-examples", 0),
        ("num-examples", -1),
        ("num-examples", True),
        ("num-examples", 1.5),
        ("num-examples", "7"),
        ("binding", 7),
        ("binding", "0f" * 64),
    ],
)
def test_missing_or_impossible_entry_is_named(name: str, value: object) -> None:
    """Each entry that is missing or of another form is refused by a message that shows it."""
    facts = {k: v for k, v in {**GOOD, name: value}.items() if v is not None}
    with pytest.raises(ValueError, match=r"its (address|model digest|num-examples|binding) is"):
        Hello.read(Reply(node=5, ok=True, facts=facts))  # type: ignore[arg-type]


def test_failed_reply_is_refused_with_its_error() -> None:
    """A site that answered with an error is refused with that error."""
    with pytest.raises(ValueError, match="no GPU"):
        Hello.read(Reply(node=5, ok=False, error="no GPU"))
