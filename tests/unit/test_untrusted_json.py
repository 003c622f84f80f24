"""JSON from others cannot end a process, whatever the interpreter's recursion limit is."""

import subprocess
import sys

import pytest

from bahefl_flwr.untrusted_json import MOST_NESTED, read_json


def test_what_json_reads_is_read() -> None:
    """Objects, lists and numbers come out as json.loads gives them."""
    assert read_json(b'{"a": [1, {"b": "\\u00fc"}]}') == {"a": [1, {"b": "ü"}]}


@pytest.mark.parametrize("depth", [MOST_NESTED + 1, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """One level more than anything of ours has is an error, not a recursion."""
    with pytest.raises(ValueError, match="nested deeper"):
        read_json(b"[" * depth)


def test_as_deep_as_allowed_is_read() -> None:
    """The limit itself still passes."""
    assert read_json(b"[" * MOST_NESTED + b"]" * MOST_NESTED)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{", b"]" * 10])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    """Damaged, empty and binary input alike."""
    with pytest.raises(ValueError):  # noqa: PT011  # json's own words
        read_json(data)


def test_a_process_with_py_evm_in_it_survives() -> None:
    """py-evm raises the recursion limit to 100,000: json.loads dies of a segmentation fault there, this does not."""
    code = "import eth\nfrom bahefl_flwr.untrusted_json import read_json\ntry:\n read_json(b'['*200000)\n"
    code += "except ValueError:\n print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "ok")
