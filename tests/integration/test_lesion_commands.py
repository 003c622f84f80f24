"""`bahefl evaluate`, `predict` and `export` on a finished run's folder."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bahefl_flwr import console
from bahefl_flwr.lesion.data import load_folder
from bahefl_flwr.lesion.model import LightUNet
from bahefl_flwr.site.model import load_model, save_model
from lesion_run import slice_folder, tiny_model, tiny_run

REAL = Path("/work/shared/data/ct-slices")
Said = pytest.CaptureFixture[str]


def evaluated(capsys: Said, run: Path, data: Path, *options: str) -> dict[str, Any]:
    """What `bahefl evaluate` says in JSON."""
    assert console.main(["evaluate", str(run), "--data", str(data), "--format", "json", *options]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def short(bias: float) -> str:
    """The digest of `tiny_model` as messages name it; it is the same in every round."""
    return tiny_model(bias, 1).digest().hex()[:16]


def newest(run: Path, site: int) -> Path:
    """Where a site keeps its newest model."""
    return run / "sites" / f"{site:03d}" / "model.safetensors"


def test_the_figures_are_those_of_the_pixels(tmp_path: Path, capsys: Said) -> None:
    """A model that calls every pixel lesion: all lesion found, the rest false, and each figure under its own name."""
    data = slice_folder(tmp_path / "data")
    truth = load_folder(data, 32).masks

    facts = evaluated(capsys, tiny_run(tmp_path).path, data)

    lesion, pixels = int(truth.sum()), truth.size
    assert facts["pooled"]["tp"] == lesion
    assert facts["pooled"]["fp"] == pixels - lesion
    assert facts["pooled"]["dice"] == pytest.approx(2 * lesion / (lesion + pixels))
    assert facts["pooled"]["accuracy"] == lesion / pixels
    each = [2 * m.sum() / (m.sum() + m.size) for m in truth if m.any()]
    assert facts["mean_dice_of_positive_slices"] == pytest.approx(np.mean(each))
    assert (facts["hd95"]["spurious"], facts["hd95"]["missed"], facts["hd95"]["pairs"]) == (3, 0, 3)
    assert set(facts["scans"]) == {"scan0", "scan1"}
    assert [s["dice"] is None for s in facts["each_slice"]] == [True, False] * 3


def test_slices_without_any_prediction_are_counted_and_not_dropped(tmp_path: Path, capsys: Said) -> None:
    """A model that finds nothing: no distance at all, every lesion missed, and the diagonal for each of them."""
    facts = evaluated(capsys, tiny_run(tmp_path, bias=-9.0).path, slice_folder(tmp_path / "data"))

    assert facts["hd95"] == {
        "mean_px": None, "pairs": 0, "missed": 3, "spurious": 0, "both_empty": 3,
        "mean_px_with_diagonal_for_one_empty": pytest.approx(32 * 2**0.5),
    }  # fmt: skip
    assert facts["mean_dice_of_positive_slices"] == 0


def test_distances_in_mm_need_the_size_of_the_field(tmp_path: Path, capsys: Said) -> None:
    """350 mm over 32 pixels; without it nothing is called mm."""
    run, data = tiny_run(tmp_path).path, slice_folder(tmp_path / "data")

    hd95 = evaluated(capsys, run, data, "--field-mm", "350")["hd95"]

    assert hd95["mean_mm"] == pytest.approx(hd95["mean_px"] * 350 / 32)
    assert not [name for name in evaluated(capsys, run, data)["hd95"] if name.endswith("mm")]


def test_the_text_says_the_same_and_warns_of_slices_seen_in_training(tmp_path: Path, capsys: Said) -> None:
    """Whoever measures on the training folder is told so."""
    data = slice_folder(tmp_path / "data")
    run = tiny_run(tmp_path, data={"kind": "folder", "root": str(data)}).path

    assert console.main(["evaluate", str(run), "--data", str(data)]) == 0

    said = capsys.readouterr().out
    assert "6 slices, 3 with lesion, at 32 px" in said
    assert "3 spurious" in said
    assert "CAUTION: the run was trained on slices of this folder" in said


def test_without_any_lesion_dice_and_recall_are_no_figures(tmp_path: Path, capsys: Said) -> None:
    """Null with the reason in JSON, "-" with the reason in the text, also per scan; what has a meaning stays."""
    run, data = tiny_run(tmp_path, bias=-9.0).path, slice_folder(tmp_path / "data", lesions=False)

    facts = evaluated(capsys, run, data)

    assert facts["undefined"] == dict.fromkeys(("dice", "precision", "recall", "score"), "no slice has a lesion")
    assert {name for name, value in facts["pooled"].items() if value is None} == set(facts["undefined"])
    assert (facts["pooled"]["accuracy"], facts["hd95"]["both_empty"]) == (1.0, 6)
    assert [scan["recall"] for scan in facts["scans"].values()] == [None, None]
    assert console.main(["evaluate", str(run), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "dice -, precision -, recall -, accuracy 1.0000" in said
    assert "-: no slice has a lesion, so dice, precision, recall, score would mean nothing" in said
    assert "scan0 (3 slices): -, -" in said


def test_a_model_that_finds_nothing_has_no_precision(tmp_path: Path, capsys: Said) -> None:
    """Of no predicted pixel there is no share that is right; what it missed is counted."""
    facts = evaluated(capsys, tiny_run(tmp_path, bias=-9.0).path, slice_folder(tmp_path / "data"))

    assert facts["undefined"] == {"precision": "no lesion was found"}
    assert (facts["pooled"]["precision"], facts["pooled"]["dice"], facts["pooled"]["recall"]) == (None, 0.0, 0.0)


def test_slices_of_another_kind_than_in_training_are_pointed_at(tmp_path: Path, capsys: Said) -> None:
    """Real slices for a model of phantoms, and phantoms for one of real slices; on standard error, so that JSON stays JSON."""
    real, phantoms = slice_folder(tmp_path / "real"), slice_folder(tmp_path / "phantoms-in-files")
    for k, path in enumerate(sorted((phantoms / "frames").iterdir())):
        for part in ("frames", "masks"):
            (phantoms / part / path.name).rename(phantoms / part / f"phantom_site0_{k}.png")
    of_phantoms = tiny_run(tmp_path).path
    of_slices = tiny_run(tmp_path / "other", data={"kind": "folder", "root": str(tmp_path / "elsewhere")}).path

    told = {}
    for run, trained_on in ((of_phantoms, "phantom"), (of_slices, "folder")):
        for data in (real, phantoms):
            assert console.main(["evaluate", str(run), "--data", str(data), "--format", "json"]) == 0
            out, told[run, data] = capsys.readouterr()
            assert json.loads(out)["trained_on"] == trained_on

    assert told[of_phantoms, real].startswith("warning: the model was trained on generated phantoms (data.kind=phantom)")
    assert told[of_slices, phantoms].startswith("warning: the model was trained on the slices of a folder (data.kind=folder)")
    assert told[of_phantoms, phantoms] == told[of_slices, real] == ""


def test_masks_for_slices_of_another_kind_come_with_the_same_warning(tmp_path: Path, capsys: Said) -> None:
    """They are made all the same."""
    run, data = tiny_run(tmp_path).path, slice_folder(tmp_path / "data")
    assert console.main(["predict", str(run), "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.startswith("warning: the model was trained on generated phantoms (data.kind=phantom)")


def test_predicted_masks_fit_their_slices(tmp_path: Path, capsys: Said) -> None:
    """Masks of 0 and 255 in the slices' own size under their names, so that both folders make a data set; and overlays."""
    data, out = slice_folder(tmp_path / "data"), tmp_path / "out"

    assert console.main(["predict", str(tiny_run(tmp_path).path), "--data", str(data), "--out", str(out)]) == 0

    names = sorted(path.name for path in (data / "frames").iterdir())
    assert sorted(path.name for path in (out / "masks").iterdir()) == names
    assert sorted(path.name for path in (out / "overlays").iterdir()) == names
    mask = cv2.imread(str(out / "masks" / names[0]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (48, 48)
    assert set(np.unique(mask)) == {255}
    picture = cv2.imread(str(out / "overlays" / names[1]))
    assert picture.shape[0] >= 512
    assert (picture[..., 2] > picture[..., 0]).any(), "the true contour is red"
    assert "6 slices, lesion found in 6" in capsys.readouterr().out


def test_slices_without_masks_are_segmented_too(tmp_path: Path) -> None:
    """That is what prediction is for; a flat folder of JPEG files will do."""
    data, out = tmp_path / "flat", tmp_path / "out"
    data.mkdir()
    cv2.imwrite(str(data / "a.jpg"), np.full((40, 40), 90, np.uint8))

    assert console.main(["predict", str(tiny_run(tmp_path).path), "--data", str(data), "--out", str(out)]) == 0

    assert [path.name for path in (out / "masks").iterdir()] == ["a.jpg.png"]


def test_predictions_never_overwrite_true_masks(tmp_path: Path, capsys: Said) -> None:
    """--out must be empty: the data folder itself is refused, and stays as it was."""
    data = slice_folder(tmp_path / "data")
    before = {path: path.read_bytes() for path in (data / "masks").iterdir()}

    assert console.main(["predict", str(tiny_run(tmp_path).path), "--data", str(data), "--out", str(data)]) == 2

    assert "is not empty" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (data / "masks").iterdir()} == before


def test_an_unfit_slice_stops_a_prediction_before_it_starts(tmp_path: Path, capsys: Said) -> None:
    """Every unfit file is named, and no folder is made."""
    data = slice_folder(tmp_path / "data", masks=False)
    (data / "frames" / "broken.png").write_bytes(b"no")
    cv2.imwrite(str(data / "frames" / "wide.png"), np.zeros((8, 9), np.uint8))

    assert console.main(["predict", str(tiny_run(tmp_path).path), "--data", str(data), "--out", str(tmp_path / "out")]) == 3

    said = capsys.readouterr().err
    assert "broken.png: cannot be read" in said
    assert "wide.png is 9x8, not square" in said
    assert not (tmp_path / "out").exists()


def test_an_exported_model_is_the_sites_own_file_and_loads(tmp_path: Path, capsys: Said) -> None:
    """Byte for byte what a site keeps; plain PyTorch loads it as the card says."""
    run, file = tiny_run(tmp_path).path, tmp_path / "lesions.safetensors"

    assert console.main(["export", str(run), str(file)]) == 0

    assert file.read_bytes() == (run / "sites" / "000" / "model.safetensors").read_bytes()
    card = (tmp_path / "lesions.md").read_text()
    example = card.split("```python\n")[1].split("```")[0].replace("lesions.safetensors", str(file))
    names: dict[str, Any] = {}
    exec(example, names)
    assert isinstance(names["network"], LightUNet)
    assert torch.equal(names["network"].state_dict()["head.bias"], load_file(file)["head.bias"])


def test_the_card_tells_lineage_figures_and_limits(tmp_path: Path) -> None:
    """Round, digests, contract, settings, named figures, and what the model must not be used for."""
    run = tiny_run(tmp_path)

    assert console.main(["export", str(run.path), str(tmp_path / "m.safetensors")]) == 0

    card = (tmp_path / "m.md").read_text()
    for told in (
        "model after round | 2", tiny_model(9.0, 2).digest().hex(), "cd" * 32, "0x" + "11" * 20, "0x" + "aa" * 20,
        "| train.lr | 0.005 |", "| pooled Dice (F1 over all pixels) | 0.8000 |", "threshold 2 of 3",
        "Not a medical device", "trained on generated phantoms, not on patients", "audit RUN --model m.safetensors",
    ):  # fmt: skip
        assert told in card, told
    assert str(tmp_path) not in card, "folders may say whose data they hold"


def test_a_damaged_site_is_no_harm_where_another_has_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The final model is the one that the summary names, at whichever site; copies that are not what they say are named."""
    run = tiny_run(tmp_path).path
    torn, exchanged, good = (run / "sites" / f"00{site}" / "model.safetensors" for site in range(3))
    torn.write_bytes(b"torn")
    save_model(tiny_model(-9.0, 2), exchanged)

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0

    assert load_model(tmp_path / "m.safetensors").digest() == tiny_model(9.0, 2).digest()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"{torn} is not a model file of bahefl")
    assert said[1].startswith(f"{exchanged} is model {short(-9.0)} of round 2, a round that gave {short(9.0)}: exchanged")
    assert all(text.endswith(f"(the model of round 2 was taken from {good})") for text in said)


def test_an_altered_copy_is_named_wherever_it_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also after the good one, and with its weights exchanged under the old digest; a site's model of another round is none."""
    run = tiny_run(tmp_path).path
    save_model(tiny_model(-9.0, 1), run / "sites" / "001" / "model.safetensors")
    altered = run / "sites" / "002" / "model.safetensors"
    whole = bytearray(altered.read_bytes())
    whole[-1] ^= 1
    altered.write_bytes(whole)

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0

    (record,) = caplog.records
    assert record.getMessage().startswith(f"{altered} was altered: its arrays do not have the digest it names")


def test_another_model_of_another_round_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every file must be the model that the round it names gave, also where that is not the chosen round, or there is none."""
    run = tiny_run(tmp_path).path
    best, unknown = run / "sites" / "000" / "best.safetensors", newest(run, 1)
    save_model(tiny_model(3.0, 1), best)
    save_model(tiny_model(3.0, 7), unknown)

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0

    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"{best} is model {short(3.0)} of round 1, a round that gave {short(-9.0)}: exchanged",
        f"{unknown} is model {short(3.0)} of round 7, which the record of rounds lacks: not compared",
    ]


def test_a_held_round_makes_no_copy_an_exchanged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same model stands under both numbers; it is taken with the chosen one, and what is neither is named."""
    kept = tiny_model(-9.0, 1)
    run = tiny_run(tmp_path, bias=-9.0, included=[])
    summary = run.summary()
    assert summary
    run.write_summary({**summary, "chosen": {"round": 1, "model_digest": kept.digest().hex()}})
    save_model(kept, run.path / "sites" / "001" / "best.safetensors")
    exchanged = run.path / "sites" / "002" / "best.safetensors"
    save_model(tiny_model(9.0, 1), exchanged)

    assert console.main(["export", str(run.path), str(tmp_path / "m.safetensors")]) == 0

    assert load_model(tmp_path / "m.safetensors").round == 1
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{exchanged} is model {short(9.0)} of round 1, a round that gave {short(-9.0)}")


def test_no_site_with_the_final_model_is_an_error_that_names_what_there_is(tmp_path: Path, capsys: Said) -> None:
    """Nothing else is exported in its place."""
    run = tiny_run(tmp_path).path
    for site in range(3):
        save_model(tiny_model(-9.0, 1), run / "sites" / f"00{site}" / "model.safetensors")

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 5

    said = capsys.readouterr().err
    assert "that was chosen in" in said
    assert "of round 1" in said
    assert not (tmp_path / "m.safetensors").exists()


def test_the_best_rounds_model_is_the_runs_model(tmp_path: Path, capsys: Said) -> None:
    """Where the summary chose an earlier round, its model is measured and exported, not the last one."""
    run = tiny_run(tmp_path)
    best = tiny_model(-9.0, 1)
    for site in range(3):
        save_model(best, run.path / "sites" / f"00{site}" / "best.safetensors")
    summary = run.summary()
    assert summary
    run.write_summary({**summary, "chosen": {"round": 1, "model_digest": best.digest().hex()}})

    facts = evaluated(capsys, run.path, slice_folder(tmp_path / "data"))

    assert (facts["round"], facts["pooled"]["recall"]) == (1, 0.0)


def test_a_run_that_goes_on_has_its_newest_model(tmp_path: Path, capsys: Said, caplog: pytest.LogCaptureFixture) -> None:
    """Before there is a summary, the site that is ahead counts; that its round has no line yet is said."""
    run = tiny_run(tmp_path, ended=False).path
    save_model(tiny_model(-9.0, 5), newest(run, 2))

    assert evaluated(capsys, run, slice_folder(tmp_path / "data"))["round"] == 5
    (record,) = caplog.records
    assert "of round 5, of which metrics.jsonl has no line yet: not compared" in record.getMessage()


def test_bad_files_of_a_killed_run_are_no_harm_where_another_site_has_the_model(
    tmp_path: Path, capsys: Said, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a summary, too: torn, altered and exchanged files are named, though one says that it is newer."""
    run = tiny_run(tmp_path, ended=False, abandoned="too few updates", round=3)
    run.append_metrics({**run.metrics()[0], "round": 2, "model_digest": tiny_model(9.0, 2).digest().hex()})
    save_model(tiny_model(3.0, 3), newest(run.path, 0))
    newest(run.path, 1).write_bytes(b"torn")

    facts = evaluated(capsys, run.path, slice_folder(tmp_path / "data"))

    assert (facts["round"], facts["pooled"]["recall"]) == (2, 1.0)
    torn, exchanged = (record.getMessage() for record in caplog.records)
    assert torn.startswith(f"{newest(run.path, 1)} is not a model file of bahefl")
    assert exchanged.startswith(f"{newest(run.path, 0)} is model {short(3.0)} of round 3, a round that gave none: exchanged")
    assert torn.endswith(f"(the model of round 2 was taken from {newest(run.path, 2)})")


def test_a_killed_run_without_any_good_file_names_each(tmp_path: Path, capsys: Said) -> None:
    """It is not said to have no model."""
    run = tiny_run(tmp_path, ended=False).path
    newest(run, 0).write_bytes(b"torn")
    for site in (1, 2):
        save_model(tiny_model(3.0, site), newest(run, site))

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 5

    said = capsys.readouterr().err
    assert "no site has a good model" in said
    assert [str(newest(run, site)) in said for site in range(3)] == [True] * 3


def test_of_two_newest_models_the_one_that_the_round_gave_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The round's line decides, not how many files there are."""
    run = tiny_run(tmp_path, ended=False).path
    for site in (0, 1):
        save_model(tiny_model(3.0, 2), newest(run, site))

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0

    assert load_model(tmp_path / "m.safetensors").digest() == tiny_model(9.0, 2).digest()
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == [str(newest(run, site)) for site in (0, 1)]


def test_before_a_round_has_its_line_most_sites_say_which_model_it_gave(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The other one is named with the digest that was taken, and that nothing was compared."""
    run = tiny_run(tmp_path, ended=False).path
    for site, bias in enumerate((3.0, 6.0, 6.0)):
        save_model(tiny_model(bias, 3), newest(run, site))

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0

    assert load_model(tmp_path / "m.safetensors").digest() == tiny_model(6.0, 3).digest()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"{newest(run, 0)} is model {short(3.0)} of round 3, most sites have {short(6.0)}: exchanged",
        f"{newest(run, 1)} is model {short(6.0)} of round 3, of which metrics.jsonl has no line yet: not compared",
    ]


def test_sites_that_differ_without_a_line_or_a_majority_are_an_error(tmp_path: Path, capsys: Said) -> None:
    """Nothing tells which of two models is the run's."""
    run = tiny_run(tmp_path, ended=False).path
    for site, bias in enumerate((3.0, 6.0)):
        save_model(tiny_model(bias, 3), newest(run, site))

    assert console.main(["export", str(run), str(tmp_path / "m.safetensors")]) == 5

    said = capsys.readouterr().err
    assert "sites differ in the model of round 3" in said
    assert short(3.0) in said and short(6.0) in said
    assert not (tmp_path / "m.safetensors").exists()


def test_first_weights_are_no_result(tmp_path: Path, capsys: Said) -> None:
    """Of a run in which no round was finalised there is nothing to measure."""
    run = tiny_run(tmp_path, ended=False).path
    for site in range(3):
        save_model(tiny_model(9.0, 0), run / "sites" / f"{site:03d}" / "model.safetensors")

    assert console.main(["evaluate", str(run), "--data", str(slice_folder(tmp_path / "data"))]) == 5
    assert "no round was finalised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["evaluate", "/nowhere", "--data", "/nowhere"], 2, "/nowhere is no run folder (a folder with"),
        (["evaluate", "RUN", "--data", "/nowhere"], 3, "is not a folder"),
        (["predict", "RUN", "--data", "/nowhere", "--out", "out"], 3, "is not a folder"),
        (["export", "RUN"], 2, "give FILE.safetensors, --onnx FILE.onnx, or both"),
        (["export", "RUN", "/nowhere/m.safetensors"], 2, "cannot be written"),
        (["evaluate", "RUN"], 2, "Missing option '--data'"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, capsys: Said, argv: list[str], code: int, message: str) -> None:
    """The error, what to do, and its exit code."""
    run = str(tiny_run(tmp_path).path)

    assert console.main([run if word == "RUN" else word for word in argv]) == code

    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.skipif(find_spec("onnxscript") is not None, reason="the extra is installed")
def test_without_the_extra_onnx_says_what_to_install(tmp_path: Path, capsys: Said) -> None:
    """ONNX is optional; the error names the extra."""
    assert console.main(["export", str(tiny_run(tmp_path).path), "--onnx", str(tmp_path / "m.onnx")]) == 2
    assert "pip install 'bahefl-flwr[onnx]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra onnx")
def test_the_onnx_file_gives_the_same_probabilities(tmp_path: Path) -> None:
    """Grey values in, the probabilities of our own inference out, for any number of slices."""
    from onnx.reference import ReferenceEvaluator

    from bahefl_flwr.lesion.prediction import probabilities
    from bahefl_flwr.lesion.training import Engine
    from bahefl_flwr.trained import open_trained

    run, file = tiny_run(tmp_path, bias=0.3).path, tmp_path / "m.onnx"
    assert console.main(["export", str(run), "--onnx", str(file)]) == 0
    images = load_folder(slice_folder(tmp_path / "data"), 32).images[:3]

    (theirs,) = ReferenceEvaluator(str(file)).run(None, {"slices": images})

    engine = Engine(device=torch.device("cpu"), autocast=None, reason="to compare")
    ours = probabilities(open_trained(run).network(), images, engine)[0]
    assert np.allclose(theirs, ours, atol=1e-5)


@pytest.mark.skipif(not REAL.is_dir(), reason="real slices are not on this machine")
def test_real_slices_are_evaluated(tmp_path: Path, capsys: Said) -> None:
    """Twelve real slices of one patient, through the same command."""
    data = tmp_path / "data"
    for part in ("frames", "masks"):
        (data / part).mkdir(parents=True)
        for k in range(20, 32):
            (data / part / f"medseg_vol1_{k:03d}.png").symlink_to(REAL / part / f"medseg_vol1_{k:03d}.png")

    facts = evaluated(capsys, tiny_run(tmp_path).path, data)

    assert (facts["slices"], facts["positive_slices"]) == (12, 12)
    assert facts["pooled"]["recall"] == 1.0
