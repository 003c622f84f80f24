"""`bahefl evaluate`, `predict`, `export` on what a site keeps of a task: between hospitals nobody else has the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr import console
from bahefl_flwr.client import client_fn
from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.site.lineage import read_lineage
from bahefl_flwr.site.model import BEST_FILE, MODEL_FILE, load_model, save_model
from deployed_run import HomesGrid, deployed
from lesion_run import RUN_DIGEST, TINY, slice_folder, tiny_model, tiny_run, tiny_site

Said = pytest.CaptureFixture[str]


def evaluated(capsys: Said, folder: Path, data: Path) -> dict[str, Any]:
    """What `bahefl evaluate` says in JSON."""
    assert console.main(["evaluate", str(folder), "--data", str(data), "--format", "json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_a_site_gets_the_figures_of_the_runs_own_folder(tmp_path: Path, capsys: Said) -> None:
    """The same model has the same figures, to the pixel; only whose folder it came from differs."""
    data = slice_folder(tmp_path / "data")
    of_run, of_site = (evaluated(capsys, f, data) for f in (tiny_run(tmp_path).path, tiny_site(tmp_path)))
    assert of_site.pop("run") == "11111111-0001"
    assert {**of_site, "run": of_run["run"]} == of_run


def test_a_site_gets_the_masks_of_the_runs_own_folder(tmp_path: Path) -> None:
    """Byte for byte."""
    data, masks = slice_folder(tmp_path / "data"), []
    for name, folder in (("a", tiny_run(tmp_path).path), ("b", tiny_site(tmp_path))):
        assert console.main(["predict", str(folder), "--data", str(data), "--out", str(tmp_path / name)]) == 0
        masks.append({path.name: path.read_bytes() for path in (tmp_path / name / "masks").iterdir()})
    assert masks[0] == masks[1] and len(masks[0]) == 6


def test_a_site_is_warned_of_its_own_slices(tmp_path: Path, capsys: Said) -> None:
    """It was trained on the folder that its home names."""
    data = slice_folder(tmp_path / "data")
    assert evaluated(capsys, tiny_site(tmp_path, data_root=str(data)), data)["seen_in_training"] is True


def test_a_sites_card_tells_what_the_site_knows_and_what_not(tmp_path: Path) -> None:
    """Run, rounds, digests, contract, settings, its own test figures; and in words what only the run's folder has."""
    folder = tiny_site(tmp_path)
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 0
    assert (tmp_path / "m.safetensors").read_bytes() == (folder / MODEL_FILE).read_bytes()
    card = (tmp_path / "m.md").read_text()
    for told in (
        RUN_DIGEST.hex(), "model after round | 2", tiny_model(9.0, 2).digest().hex(),
        f"| 1 | 3 | `{'cd' * 32}` | 0x{'aa' * 20} |",
        f"`0x{'11' * 20}` on chain 20260", "2 / not known to a site", "threshold 2 of 3 or more", "| train.lr | 0.005 |",
        "On the test part of the one site that wrote this", "| pooled Dice (F1 over all pixels) | 0.7500 |",
        "Not known there: rounds that were abandoned, how the run ended",
    ):  # fmt: skip
        assert told in card, told
    assert "nan" not in card


def test_the_model_that_the_site_tested_is_the_runs(tmp_path: Path, capsys: Said) -> None:
    """Where that was the one of an earlier round, it is measured, not the newest."""
    facts = evaluated(capsys, tiny_site(tmp_path, tested=1), slice_folder(tmp_path / "data"))
    assert (facts["round"], facts["pooled"]["recall"]) == (1, 0.0)


def test_a_site_that_could_not_measure_the_chosen_model_says_so(tmp_path: Path) -> None:
    """It has no test slices, say; the model is the run's all the same."""
    assert console.main(["export", str(tiny_site(tmp_path, tested=1, measured=False)), str(tmp_path / "m.safetensors")]) == 0
    assert load_model(tmp_path / "m.safetensors").round == 1
    card = (tmp_path / "m.md").read_text()
    assert "which this site could not measure" in card and "No test figures" in card


def test_a_site_that_has_not_kept_the_chosen_model_hands_on_no_other(tmp_path: Path, capsys: Said) -> None:
    """Its newest model is not what the other sites hand on."""
    folder = tiny_site(tmp_path, tested=1)
    (folder / BEST_FILE).unlink()
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) != 0
    assert "is model" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_before_the_end_the_newest_model_counts_and_has_no_figures(tmp_path: Path) -> None:
    """Its card says so."""
    assert console.main(["export", str(tiny_site(tmp_path, tested=0)), str(tmp_path / "m.safetensors")]) == 0
    assert load_model(tmp_path / "m.safetensors").round == 2
    card = (tmp_path / "m.md").read_text()
    assert "none was chosen yet" in card and "No test figures" in card


@pytest.mark.parametrize("tested", [2, 0])
def test_a_file_that_was_exchanged_is_never_used(tmp_path: Path, capsys: Said, tested: int) -> None:
    """A whole and sound model file, but not the one that this site opened and the ledger named."""
    folder = tiny_site(tmp_path, tested=tested)
    save_model(tiny_model(3.0, 2), folder / MODEL_FILE)
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 5
    assert tiny_model(3.0, 2).digest().hex()[:16] in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_an_exchanged_file_beside_the_chosen_model_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The site's newest model is compared with the site's own notes, though another one is handed on."""
    folder = tiny_site(tmp_path, tested=1)
    save_model(tiny_model(3.0, 2), folder / MODEL_FILE)
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 0
    assert load_model(tmp_path / "m.safetensors").round == 1
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder / MODEL_FILE} is model {tiny_model(3.0, 2).digest().hex()[:16]} of round 2")


def test_first_weights_are_no_model_of_the_run(tmp_path: Path, capsys: Said) -> None:
    """A site that has opened nothing yet, or whose journal does not name the file's round, has nothing to hand on."""
    folder = tiny_site(tmp_path, tested=0)
    (folder / BEST_FILE).unlink()
    save_model(tiny_model(9.0, 0), folder / MODEL_FILE)
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 5
    assert "the one it started from, which no round made" in capsys.readouterr().err
    (folder / "journal").write_bytes(b"")
    assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 5
    assert "has opened no round of this task yet" in capsys.readouterr().err


def test_a_folder_of_neither_kind_is_told_what_both_look_like(tmp_path: Path, capsys: Said) -> None:
    """And a home, which tasks it has; a site's folder has no report."""
    folder = tiny_site(tmp_path)
    for command in (["evaluate", "--data", "x"], ["predict", "--data", "x", "--out", "y"], ["export", "z.safetensors"]):
        name, *rest = command
        assert console.main([name, str(tmp_path), *rest]) == 2
        said = capsys.readouterr().err
        assert "is no run folder (a folder with config.yaml" in said
        assert "none that a site keeps of a task (HOME/runs/..., with settings.yaml and journal)" in said
    assert console.main(["export", str(folder.parent.parent), "z.safetensors"]) == 2
    assert f"this is a home, name one of {folder}" in capsys.readouterr().err
    assert console.main(["report", str(folder)]) == 2
    assert "evaluate, predict and export read it" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert console.main(["export", str(folder.parent.parent), "z.safetensors"]) == 2
    assert "this is a home, which has taken part in no task yet" in capsys.readouterr().err


@pytest.mark.federation
def test_every_site_of_a_deployment_hands_on_the_same_model(tmp_path: Path, capsys: Said) -> None:
    """Real sites, each with slices of its own: equal figures and equal files, and together they tested what the run tells."""
    roots = [slice_folder(tmp_path / f"slices-{k}", count=20) for k in range(3)]
    with NodeProcess(tmp_path / "ledger" / "ledger.sqlite") as node:
        federation = deployed(tmp_path, node.url, *TINY, "federation.rounds=1", "train.local_epochs=1", data_roots=roots)
        federation.whitelist(0, 1, 2)
        strategy, run = federation.run(HomesGrid(federation.settings, federation.homes, client_fn=client_fn))
    folders = [next((home / "runs").iterdir()) for home in federation.homes]
    facts = [evaluated(capsys, folder, roots[0]) for folder in folders]
    assert [f.pop("seen_in_training") for f in facts] == [True, False, False]
    assert facts[0] == facts[1] == facts[2]
    assert facts[0]["model_digest"] == strategy.chosen_model
    tested = [figures for folder in folders if (figures := read_lineage(folder).figures)]
    assert len(tested) == 3
    examples = sum(t["num-examples"] for t in tested)
    assert sum(t["loss"] * t["num-examples"] for t in tested) / examples == pytest.approx(strategy.test_metrics["loss"])
    files = []
    for folder in folders:
        assert console.main(["export", str(folder), str(tmp_path / "m.safetensors")]) == 0
        card = (tmp_path / "m.md").read_text()
        (line,) = run.metrics()
        assert line["aggregate_digest"] in card and line["coordinator"]["address"] in card
        files.append((tmp_path / "m.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert console.main(["export", str(run.path), "z.safetensors"]) == 5
    assert "name the folder that it keeps of the task, HOME/runs/..." in capsys.readouterr().err
