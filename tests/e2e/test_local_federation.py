"""Between processes: the documented script, from nothing to the audit, and what Flower says to a node that nobody registered."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anvil_node import AnvilNode
from bahefl_flwr import console
from bahefl_flwr.node_binding import new_node_key
from bahefl_flwr.site.model import load_model
from federation_processes import ENVIRONMENT, ROOT, SCRIPT, free_ports

pytestmark = pytest.mark.federation


@pytest.mark.timeout(1200)
def test_a_federation_of_processes_trains_and_passes_the_audit(tmp_path: Path) -> None:
    """TLS, authenticated SuperNodes, three sites with keys of their own, anvil, a store over HTTP, two rounds, `bahefl audit`.

    And a site hands on the model that the run chose, from its own home alone.
    """
    with AnvilNode() as anvil:
        environment = {**ENVIRONMENT, "PORT": str(free_ports(6)), "LEDGER_URL": anvil.url}
        command = [SCRIPT, tmp_path, "experiment=smoke", "train.local_epochs=1"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr + "".join(p.read_text()[-2000:] for p in (tmp_path / "logs").glob("*.log"))
    assert done.returncode == 0, said
    (run,) = (tmp_path / "runs").glob("2*-smoke")
    assert json.loads((run / "summary.json").read_text())["outcome"] == "completed"
    assert [json.loads(line)["finalised"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [True, True]
    models = {p.read_bytes() for p in tmp_path.glob("site-*/runs/*/model.safetensors")}
    assert len(models) == 1 and len(list(tmp_path.glob("site-*/runs/*/model.safetensors"))) == 3
    assert "every check holds" in done.stdout
    (task,) = (tmp_path / "site-1" / "runs").iterdir()
    assert console.main(["export", str(task), str(tmp_path / "lesions.safetensors")]) == 0
    chosen = json.loads((run / "summary.json").read_text())["chosen"]["model_digest"]
    assert load_model(tmp_path / "lesions.safetensors").digest().hex() == chosen
    assert chosen in (tmp_path / "lesions.md").read_text()


@contextmanager
def superlink(folder: Path, port: int) -> Iterator[str]:
    """A SuperLink with TLS that lets registered nodes in only; its address. The authority's file is folder/ca.crt."""
    for command in (
        "openssl ecparam -name secp384r1 -genkey -noout -out ca.key",
        "openssl req -x509 -new -key ca.key -sha384 -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -out ca.crt",
    ):
        subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    arguments = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "ca.crt", "--ssl-keyfile", "ca.key", "--enable-supernode-auth"]
    command_line = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--isolation", "process", *arguments]
    with (folder / "superlink.log").open("wb") as log:
        process = subprocess.Popen(command_line, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while "Uvicorn running" not in (folder / "superlink.log").read_text():
            assert time.monotonic() < until
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.timeout(300)
def test_a_supernode_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    """It ends by itself, and says why; that code is in the documents."""
    private, _ = new_node_key()
    (tmp_path / "node.key").write_bytes(private)
    (tmp_path / "node.key").chmod(0o600)
    port = free_ports(2)
    with superlink(tmp_path, port) as address:
        command = [
            "flower-supernode", "--superlink", address, "--root-certificates", "ca.crt", "--host", "127.0.0.1",
            "--port", str(port + 1), "--isolation", "process", "--auth-supernode-private-key", "node.key",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Exit Code: 305" in said and "2004" in said, said


def commands(text: str) -> list[str]:
    """Command lines of a document's blocks that are marked as a deployment's."""
    blocks = re.findall(r"```sh deployment\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", commands((ROOT / "docs" / "deployment.md").read_text()))
def test_what_the_walk_through_types_is_what_the_script_does(command: str) -> None:
    """Every program of it, with the same options, is in the script; or its help has them."""
    words = shlex.split(command)
    program = [word for word in words[:3] if re.fullmatch(r"[a-z][a-z-]*", word)][: 3 if words[0] == "bahefl" else 1]
    options = {word for word in words if word.startswith("--")}
    script = SCRIPT.read_text().replace("\\\n", " ")
    lines = [line for line in script.splitlines() if " ".join(program) in line]
    if any(all(option in line for option in options) for line in lines):
        return
    if words[0] != "bahefl":
        assert words[0] == "deploy/local-federation.sh", f"{command} is not in the script"
        return
    shown = subprocess.run([*program, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=False).stdout
    assert all(option in shown for option in options), f"{command}: {shown}"
