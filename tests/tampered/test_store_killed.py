"""kill -9 of a real process while it puts objects."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bahefl_flwr.store import LocalStore, Manifest, manifest_cid, part_cid

WRITER = """
import os, sys
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import LocalStore, manifest_for
store = LocalStore(sys.argv[1])
print("ready", flush=True)
for round in range(1_000_000):
    parts = [os.urandom(200_000) for _ in range(3)]
    manifest = manifest_for(parts, run=bytes(32), round=round, site="0x" + "1" * 40, epoch=1, kind=ObjectKind.UPDATE)
    print(store.put(manifest, parts).hex(), flush=True)
"""


def put_until_killed(root: Path, seconds: float) -> list[bytes]:
    """Run the writer, kill it after `seconds`, return the digests of the puts it reported as done."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")
    return [bytes.fromhex(line) for line in lines[:-1]]


@pytest.mark.parametrize("seconds", [0.003, 0.011, 0.05, 0.13, 0.2])
def test_kill_leaves_no_corrupt_object(tmp_path: Path, seconds: float) -> None:
    """Every file in the store is what its name says, every manifest has its parts, and every reported put is there."""
    done = put_until_killed(tmp_path, seconds)
    store = LocalStore(tmp_path)
    manifests: list[Manifest] = []
    for path in tmp_path.glob("objects/*/*"):
        digest = hashlib.sha256(path.read_bytes()).digest()
        assert path.name in (part_cid(digest), manifest_cid(digest))
        manifests += [store.manifest(digest)] if path.name == manifest_cid(digest) else []
    assert {manifest.digest for manifest in manifests} >= set(done)
    assert all(len(list(store.parts(manifest))) == 3 for manifest in manifests)
