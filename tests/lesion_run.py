"""A run folder as a tiny run of the lesion application leaves it, and a site's: written by hand, no ledger, no training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from bahefl_flwr.homes import parsed_site, with_own_data, write_home
from bahefl_flwr.journal import Journal
from bahefl_flwr.lesion import model as lesion_model
from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts, to_metrics
from bahefl_flwr.records import RoundPhase
from bahefl_flwr.run_folder import RunFolder, create, summarise
from bahefl_flwr.settings import Settings, compose
from bahefl_flwr.site.lineage import note_chosen, note_opened, note_tested
from bahefl_flwr.site.model import BEST_FILE, MODEL_FILE, Model, save_model
from bahefl_flwr.site.state import JOURNAL_FILE, keep_settings
from round_views import round_
from run_lines import line

TINY = (
    "experiment=smoke", "federation.sites=3", "data.image_size_px=32", "model.depth=3", "model.width=4", "data.slices=60",
    "train.device=cpu",
)  # fmt: skip
RUN_DIGEST = b"\xee" * 32
_PIXELS = PixelCounts(tp=30, fp=10, fn=10, tn=974)
SITE_TEST: Any = {
    **to_metrics(Evaluation(pixels=_PIXELS, slices=1, positive_slices=1, dice_sum=0.75)), "loss": 0.5, "num-examples": 1,
}  # fmt: skip
TEST = {"tp": 300, "fp": 100, "fn": 50, "tn": 9790, "dice": 0.8, "precision": 0.75, "recall": 0.857, "mean-hd95-px": 4.5}


@lru_cache(maxsize=1)
def tiny_settings() -> Settings:
    """Composed once: Hydra takes a second."""
    return compose(TINY)


def tiny_model(bias: float, round: int) -> Model:
    """First weights, but with this logit nearly everywhere: 9 calls every pixel lesion, -9 none."""
    settings = tiny_settings()
    network = lesion_model.build(settings.model, settings.data.image_size_px)
    names = tuple(network.state_dict())
    arrays = lesion_model.initial_weights(network, settings.run.seed)
    for k, name in enumerate(names):
        if name.startswith(("head", "sides")):
            arrays[k] = np.full_like(arrays[k], bias if name.endswith("bias") else 0.0)
    return Model(round=round, arrays=tuple(arrays), names=names)


def tiny_run(
    tmp_path: Path, *, data: Mapping[str, Any] | None = None, bias: float = 9.0, ended: bool = True, **changes: Any
) -> RunFolder:
    """A run of two rounds and three sites, of which each keeps the model; the first round's finds nothing.

    Args:
      data: changes to its data settings. ended: with a summary. changes: to the line of round 2.
    """
    settings = tiny_settings()
    own = settings.data.model_copy(update={"cache": str(tmp_path / "phantoms"), **(data or {})})
    settings = settings.model_copy(update={"data": own})
    folder = create(tmp_path / "runs", settings.run.name, 1, settings.yaml())
    models = {1: tiny_model(-9.0, 1), 2: tiny_model(bias, 2)}
    given = {number: {"model_digest": model.digest().hex()} for number, model in models.items()}
    first = {"coordinator": {"index": 1, "address": "0x" + "aa" * 20}}
    lines = [line(1, score=0.4, **first, **given[1]), line(2, **{**given[2], **changes})]
    for each in lines:
        folder.append_metrics({**each, "aggregate_digest": "cd" * 32, "epoch": 1, "selected": [0, 1, 2, 3]})
    model = models[2]
    for site in range(3):
        path = folder.path / "sites" / f"{site:03d}"
        path.mkdir(parents=True)
        save_model(model, path / "model.safetensors")
    if ended:
        summary = summarise(lines, experiment="smoke", seconds=60.0, test=TEST)
        summary["ledger"] = {
            "contract": "0x" + "11" * 20, "chain_id": 20260, "last_round": 2, "block_number": 40,
            "model_digest": model.digest().hex(), "key_mode": "threshold 2 of 3", "account_keys": "throw-away keys",
        }  # fmt: skip
        folder.write_summary(summary)
    return folder


def tiny_site(tmp_path: Path, *, data_root: str = "", bias: float = 9.0, tested: int = 2, measured: bool = True) -> Path:
    """What a site keeps of a task of two rounds in its home; it took part with `tiny_settings`.

    Args:
      tested: round of the model that the site tested as the run's: 2, or 1, whose model finds nothing; 0 before the end.
      measured: whether the site could measure that model.
    """
    home = tmp_path / "home"
    folder = home / "runs" / "11111111-0001"
    folder.mkdir(parents=True)
    entries = {"ledger-url": "http://127.0.0.1:9", "chain-id": 7, "contract": "0x" + "22" * 20, "data-root": data_root}
    write_home(home, parsed_site(entries))
    settings = tiny_settings()
    keep_settings(folder, with_own_data(settings, data_root, cache=str(tmp_path / "phantoms")))
    site: Any = SimpleNamespace(
        journal=Journal(folder / JOURNAL_FILE), addresses=lambda: dict.fromkeys(range(4), "0x" + "aa" * 20),
        ledger=SimpleNamespace(address="0x" + "11" * 20, chain_id=20260),
    )  # fmt: skip
    view: Any = SimpleNamespace(task=SimpleNamespace(run_digest=RUN_DIGEST))
    models = {1: tiny_model(-9.0, 1), 2: tiny_model(bias, 2)}
    for number, model in models.items():
        ended = round_(RoundPhase.FINALIZED, number=number, included=0b111, aggregate=b"\xcd" * 32)
        note_opened(site, view, ended, model)
    save_model(models[2], folder / MODEL_FILE)
    save_model(models[1], folder / BEST_FILE)
    if tested:
        note_chosen(site, RUN_DIGEST, tested)
        note_tested(site, RUN_DIGEST, tested, SITE_TEST if measured else {})
    return folder


def slice_folder(path: Path, count: int = 6, size_px: int = 48, masks: bool = True, lesions: bool = True) -> Path:
    """Slices of two scans in the layout of frames/ and masks/, every second with a block of lesion if there are `lesions`."""
    for part in ("frames", "masks") if masks else ("frames",):
        (path / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        name, mask = f"scan{k // 3}_{k}.png", np.zeros((size_px, size_px), np.uint8)
        if k % 2 and lesions:
            mask[12 : 24 + k, 12:30] = 255
        cv2.imwrite(str(path / "frames" / name), rng.integers(0, 200, mask.shape, np.uint8))
        if masks:
            cv2.imwrite(str(path / "masks" / name), mask)
    return path
