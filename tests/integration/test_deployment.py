"""Between hospitals: sites with homes of their own, admitted by a registrar, and runs that go on after their driver died."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.config import flatten_dict

from bahefl_flwr import console
from bahefl_flwr.administration import administration
from bahefl_flwr.errors import AlreadyDriven, RunFailed, SettingsError
from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.records import members_of
from bahefl_flwr.run_folder import RunFolder, driven
from bahefl_flwr.settings import compose, from_run_config
from bahefl_flwr.site.model import load_model
from deployed_run import Deployed, DriverKilled, HomesGrid, deployed, public_key
from federation_run import KnownClient, well_behaved
from in_process_grid import Deliver
from opening_noise import opening_error

pytestmark = pytest.mark.federation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployed]:
    """Three sites with homes, and a ledger that stays up between runs."""
    with NodeProcess(tmp_path / "ledger" / "ledger.sqlite") as node:
        yield deployed(tmp_path, node.url)


def test_a_run_goes_on_where_its_driver_was_killed(federation: Deployed) -> None:
    """The second driver finds folder and task by name and contract, and the sites end with the model of an undisturbed run.

    Every round is told once, and all sites end alike. The undisturbed run is the contract's next task: the same sites, seeds
    and updates, and again nobody is left out. Its model is not the same bit for bit, killed driver or not: a site rounds its
    update up or down at random, anew for every ciphertext, and what is opened carries fresh noise. `opening_error` bounds both;
    the bound is below a hundredth of what training moves the model by: a round lost, repeated or mixed up would show.
    """
    federation.whitelist(0, 1, 2)
    federation.shorten(2)
    with pytest.raises(DriverKilled):
        federation.run(HomesGrid(federation.settings, federation.homes), stop_after=1)
    strategy, folder = federation.run(HomesGrid(federation.settings, federation.homes))
    lines = folder.metrics()
    assert [line["round"] for line in lines] == [1, 2]
    assert all(line["finalised"] for line in lines)
    assert len({path.read_bytes() for path in models(federation)}) == 1
    assert strategy.final_model
    assert not list((federation.folder / "runs").glob("*-default-2"))

    (folder.path / "summary.json").write_text(json.dumps({"outcome": "completed"}))
    federation.run(HomesGrid(federation.settings, federation.homes))
    killed, undisturbed = (load_model(path).vector() for path in sorted(federation.homes[0].glob("runs/*/model.safetensors")))
    ledger = administration(federation.administrator)
    rounds = [ledger.round(number) for number in range(1, 5)]
    assert [members_of(r, r.outcome) for r in rounds] == [0b111] * 4, "nobody is left out, of either run"
    assert len({r.weights for r in rounds}) == 1
    # float32 numbers around 1, added in two rounds of either run.
    bound = sum(opening_error(federation.settings, ledger, r) for r in rounds) + 4 * float(np.finfo(np.float32).eps)
    moved = np.abs(undisturbed - KnownClient(0, well_behaved).get_parameters({})[0].flat[0]).max()
    assert np.abs(killed - undisturbed).max() < bound < 0.01 * moved


def test_a_driver_that_died_in_the_last_evaluations_leaves_the_sites_in_their_task(federation: Deployed) -> None:
    """The next driver's greeting names the run: no site drops its keys, nor makes a folder for a task that nobody started."""
    federation.whitelist(0, 1, 2)
    federation.shorten(2)
    with pytest.raises(DriverKilled):
        federation.run(HomesGrid(federation.settings, federation.homes), stop_after=2)
    ledger = administration(federation.administrator)
    assert not ledger.view().task.open
    strategy, _ = federation.run(HomesGrid(federation.settings, federation.homes))
    assert ledger.view().task.number == 1 and strategy.test_metrics
    folders = [list((home / "runs").iterdir()) for home in federation.homes]
    assert [len(kept) for kept in folders] == [1, 1, 1]
    assert all((folder / "epochs").is_dir() for (folder,) in folders)


def models(federation: Deployed) -> list[Path]:
    """The newest model that each site keeps."""
    return [max(home.glob("runs/*/model.safetensors")) for home in federation.homes]


def test_figures_that_went_with_a_driver_are_missed_in_words(federation: Deployed) -> None:
    """Two of three sites told the killed driver how they trained, and what the model is worth: the lines are of the third."""
    federation.whitelist(0, 1, 2)
    federation.shorten(2)

    def away(site: int, message: Message, deliver: Deliver) -> Message:
        asked = message.metadata.message_type == "train" and message.content["config"]["bahefl-number"] == 2
        return Message(Error(2, "away"), reply_to=message) if asked and site == 2 else deliver(message)

    with pytest.raises(DriverKilled):
        federation.run(HomesGrid(federation.settings, federation.homes, tamper=away), stop_before=1)
    strategy, folder = federation.run(HomesGrid(federation.settings, federation.homes))
    first, second = folder.metrics()
    assert first["pooled_over"] == {"validation": {"sites": 1, "of": 3}}
    assert second["pooled_over"] == {"train": {"sites": 1, "of": 3}, "validation": {"sites": 3, "of": 3}}
    assert (first["restarted"], second["restarted"]) == (True, True)
    assert strategy.test_metrics


def test_other_settings_do_not_go_on_with_a_run(federation: Deployed) -> None:
    """They would be another run; what to do is said."""
    federation.whitelist(0, 1, 2)
    with pytest.raises(DriverKilled):
        federation.run(HomesGrid(federation.settings, federation.homes), stop_after=1)
    (run,) = (federation.folder / "runs").glob("2*")
    train = federation.settings.train.model_copy(update={"lr": 0.5})
    federation.settings = federation.settings.model_copy(update={"train": train})
    with pytest.raises(SettingsError, match=f"bahefl resume {run} --end"):
        federation.run(HomesGrid(federation.settings, federation.homes))


def test_a_site_that_nobody_whitelisted_is_refused_by_name(federation: Deployed) -> None:
    """The message says who it is and which command admits it."""
    federation.whitelist(0, 1)
    with pytest.raises(
        RunFailed, match=f"{federation.addresses[2].lower()} is not active on the ledger .not whitelisted; .bahefl members"
    ):
        federation.run(HomesGrid(federation.settings, federation.homes))


def test_a_node_that_is_not_bound_to_its_account_is_refused(federation: Deployed) -> None:
    """A SuperNode that authenticates with another site's key answers for nobody."""
    federation.whitelist(0, 1, 2)
    grid = HomesGrid(federation.settings, federation.homes)
    grid.keys[1002] = public_key(federation.homes[0])
    with pytest.raises(
        RunFailed, match=f"{federation.addresses[2].lower()} is not bound to the key that this node authenticates with"
    ):
        federation.run(grid)


def test_the_registrar_adds_suspends_and_reinstates(federation: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """By the commands; the list shows who has registered and how they stand."""
    home, addresses = str(federation.administrator), federation.addresses
    assert console.main(["members", "add", home, *addresses, "--weight", "50"]) == 0
    federation.run(HomesGrid(federation.settings, federation.homes))
    assert console.main(["members", "suspend", home, addresses[1], "--reason", "left the study"]) == 0
    capsys.readouterr()
    assert console.main(["members", "list", home, "--format", "json"]) == 0
    members = json.loads(capsys.readouterr().out)
    assert {m["address"]: (m["standing"], m["max_weight"]) for m in members} == {
        addresses[0]: ("active", 50), addresses[1]: ("suspended", 50), addresses[2]: ("active", 50),
    }  # fmt: skip
    assert console.main(["members", "reinstate", home, addresses[1]]) == 0
    assert console.main(["members", "list", home]) == 0
    assert "suspended" not in capsys.readouterr().out
    assert console.main(["members", "add", home, addresses[1], "--weight", "5"]) == 4
    assert f"{addresses[1]} is an active member already" in capsys.readouterr().err


def test_who_is_whitelisted_only_is_listed_and_cannot_be_suspended(
    federation: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list has it with its weight and says what can be done; suspending it, or adding nobody, is refused in plain words."""
    home, address = str(federation.administrator), federation.addresses[0]
    assert console.main(["members", "add", home, address, "--weight", "50"]) == 0
    assert console.main(["members", "add", home, address, "--weight", "1"]) == 0
    capsys.readouterr()
    assert console.main(["members", "list", home, "--format", "json"]) == 0
    told = {"site": None, "address": address, "standing": "whitelisted", "max_weight": 1}
    assert json.loads(capsys.readouterr().out) == [told]
    assert console.main(["members", "list", home]) == 0
    said = capsys.readouterr().out
    assert f"{address}  whitelisted, not registered yet, at most 1 examples count" in said
    assert "takes no whitelisting back" in said
    assert console.main(["members", "suspend", home, address]) == 4
    assert f"{address} is whitelisted and has not registered yet" in capsys.readouterr().err
    for act in ("suspend", "reinstate"):
        assert console.main(["members", act, home, federation.addresses[1]]) == 4
        said = capsys.readouterr().err
        assert f"{federation.addresses[1]} is unknown to the ledger: `bahefl members list`" in said
        assert "NotMember" not in said
    assert console.main(["members", "add", home, "0x" + 40 * "0", "--weight", "1"]) == 2
    assert "nobody's address" in capsys.readouterr().err


def test_a_second_task_follows_on_the_same_contract(federation: Deployed) -> None:
    """The same sites with the same keys; its folder is another one, and the first task's key shares are gone."""
    federation.whitelist(0, 1, 2)
    federation.shorten(1)
    _, first = federation.run(HomesGrid(federation.settings, federation.homes))
    (first.path / "summary.json").write_text(json.dumps({"outcome": "completed"}))
    strategy, second = federation.run(HomesGrid(federation.settings, federation.homes))
    assert second.path != first.path
    assert strategy.final_model
    old, new = sorted((federation.homes[0] / "runs").iterdir())
    assert (old / "model.safetensors").exists() and not (old / "epochs").exists()
    assert (new / "epochs").exists()


def test_another_project_gets_the_same_settings(federation: Deployed) -> None:
    """What stands in app-config.toml reads, beside the project's own keys, as the settings that the sites have agreed to."""
    text = (federation.administrator / "app-config.toml").read_text()
    config = flatten_dict(tomllib.loads(text)["tool"]["flwr"]["app"]["config"])
    found = from_run_config({**config, "num-server-rounds": 3, "lr": 0.1})  # type: ignore[dict-item]
    assert found == federation.settings


def test_a_contract_is_deployed_once_in_a_home(federation: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one would leave the first one's sites alone."""
    url = federation.settings.ledger.url
    assert console.main(["ledger", "deploy", str(federation.administrator), "--rpc", url, "--unencrypted"]) == 2
    assert "has a contract already" in capsys.readouterr().err


def test_a_site_is_made_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its address and key file are printed; `site show` opens the keys; a second time nothing is overwritten."""
    secret = tmp_path / "passphrase"
    secret.write_text("five random words are good\n")
    secret.chmod(0o600)
    home = str(tmp_path / "site")
    arguments = ["site", "init", home, "--rpc", "http://127.0.0.1:8545", "--contract", "0x" + "ab" * 20]
    assert console.main([*arguments, "--passphrase-file", str(secret), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["node_key"]).read_bytes().startswith(b"ecdsa-sha2-nistp384 ")
    assert console.main(["site", "show", home]) == 0
    assert told["address"] in capsys.readouterr().out
    before = {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()}
    assert console.main([*arguments, "--unencrypted"]) == 2
    assert before == {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()}
    secret.write_text("five other words are bad\n")
    assert console.main(["site", "show", home]) == 7


def test_a_mistyped_address_is_not_whitelisted(federation: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """Its capitals are a checksum."""
    address = federation.addresses[0]
    mistyped = address[:-1] + ("0" if address[-1] != "0" else "1")
    assert console.main(["members", "add", str(federation.administrator), mistyped, "--weight", "1"]) == 2
    assert "is mistyped" in capsys.readouterr().err


def test_a_command_says_at_once_that_the_ledger_is_away(tmp_path: Path) -> None:
    """On standard error, while it waits: which node, and how long at most."""
    with NodeProcess(tmp_path / "ledger" / "ledger.sqlite") as node:
        home = deployed(tmp_path, node.url).administrator
    program = [sys.executable, "-c", "from bahefl_flwr.console import bahefl; bahefl()", "members", "list", str(home)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr
        said = waiting.stderr.readline()
        at_work = waiting.poll() is None
        waiting.kill()
    assert said.startswith(f"no answer from the ledger node at {node.url} yet: asking again for at most "), said
    assert at_work, "the line came when all was over"


def test_a_run_has_one_driver(tmp_path: Path) -> None:
    """A second one is refused before it touches anything; after the first it may."""
    run = RunFolder(path=tmp_path)
    with driven(run), pytest.raises(AlreadyDriven, match="is being driven already"), driven(run):
        raise AssertionError("two drivers")
    with driven(run):
        pass


def test_hospitals_have_longer_windows_than_simulations() -> None:
    """A message takes a process and seconds there."""
    there, here = (compose([f"ledger={kind}", *more]).ledger for kind, more in (
        ("hospitals", ("ledger.url=http://127.0.0.1:8545",)), ("embedded", ()),
    ))  # fmt: skip
    assert there.ceremony_window_s > here.ceremony_window_s and there.commit_window_s > here.commit_window_s
