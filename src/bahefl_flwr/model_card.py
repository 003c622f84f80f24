"""The card that goes with an exported model: where it comes from, what it can do, and what it must not be used for.

Says only what the folder says, a run's or a site's, and what a site's does not say. Nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bahefl_flwr.lesion.metrics import pooled
from bahefl_flwr.run_folder import RoundLine, abandoned_rounds, of_sites
from bahefl_flwr.setting_groups import DataSettings, ModelSettings, TrainSettings
from bahefl_flwr.settings import Settings
from bahefl_flwr.site.lineage import Lineage
from bahefl_flwr.site.state import task_params
from bahefl_flwr.trained import Run, Trained

_LIMITS = """\
## Intended use

Research on federated learning, and on the segmentation of COVID-19 lesions in axial CT slices (lung window, 8 bits).

## Limits

- **Not a medical device.** It has not been validated for diagnosis, triage or any decision on a patient.
- The figures above are on slices of the same sites that trained; on other scanners, populations and diseases expect less.
- {split}
- It judges slices one by one and does not know the volume around them, other diseases, or when it should abstain.
- A model can reveal something about the slices it learned from. Encryption protected the updates on their way, not this file.
"""
_UNKNOWN = (
    "This card was written from the folder of one site. Not known there: rounds that were abandoned, how the run ended, the "
    "ledger's block, and what the model is worth at the other sites; the run folder has all of it."
)
_PHANTOM = (
    "**It was trained on generated phantoms, not on patients**: it shows that the system works and is of no use on real CT."
)
_BY_SLICE = (
    "Training and test part were split by slice, as in the paper: neighbouring slices of a scan are in both, which makes the "
    "figures better than on new patients."
)
_BY_PATIENT = "Training and test part were split by patient, as far as file names tell scans."


# What shaped the model. Left out: folders, whose names may say whose data they hold, and how a run waited and computed.
_TOLD: dict[str, Any] = {
    "model": True,
    "data": {"kind", "image_size_px", "slices", "difficulty", "alpha", "split", "train", "validation"},
    "train": set(TrainSettings.model_fields) - {"device", "threads"},
    "federation": {"sites", "rounds", "min_sites", "weighting", "patience"},
    "he": {"threshold", "committee", "update_range"},
}


# Said only where they count: of phantoms, and of the schedule that restarts.
_OF_PHANTOMS = {"data.slices", "data.difficulty"}
_OF_RESTARTS = {"train.restart_epochs", "train.restart_mult"}


def card(trained: Trained, file_name: str) -> str:
    """Markdown text about a model.

    Args:
      file_name: of the exported safetensors file, for the example.
    """
    settings, digest = trained.run.settings, trained.digest
    return "\n".join(
        [
            f"# {file_name}",
            "",
            f"A light U-Net with {trained.model.parameters:,} parameters (depthwise separable convolutions, SimAM, deep",
            f"supervision) that segments COVID-19 lesions in lung CT slices of {settings.data.image_size_px} pixels a side.",
            "",
            *_section("Lineage", _table(("", ""), _lineage(trained, digest))),
            *_table(("round", "sites added", "aggregate (CID digest)", "coordinator"), _rounds(trained.run.lines)),
            "",
            f"Whoever has the run folder or its audit bundle can check all of this: `bahefl audit RUN --model {file_name}`.",
            *([_UNKNOWN] if trained.run.lineage else []),
            "",
            *_section("Training", _table(("setting", "value"), _told(settings))),
            *_section("Figures", _figures(trained)),
            _LIMITS.format(split=_split(settings.data)),
            *_section("Use", _use(settings.model, file_name)),
        ]
    )


def _section(heading: str, lines: Iterable[str]) -> list[str]:
    return [f"## {heading}", "", *lines, ""]


def _told(settings: Settings) -> list[tuple[str, str]]:
    idle = set() if settings.data.kind == "phantom" else _OF_PHANTOMS
    idle |= set() if settings.train.schedule == "restarts" else _OF_RESTARTS
    return [row for row in _flat(settings.model_dump(include=_TOLD)) if row[0] not in idle]


def _use(model: ModelSettings, file_name: str) -> list[str]:
    return [
        "```python",
        "from safetensors.torch import load_file",
        "from bahefl_flwr.lesion.model import LightUNet",
        "",
        f"network = LightUNet(width={model.width}, depth={model.depth}, unshuffle={model.unshuffle})",
        f'network.load_state_dict(load_file("{file_name}"))',
        "```",
        "",
        "Input: grey values / 255, less 0.45, over 0.33; output: logits, above 0 where there is lesion.",
    ]


def _lineage(trained: Trained, digest: str) -> list[tuple[str, str]]:
    run, summary = trained.run, trained.run.summary
    if run.lineage:
        return _witnessed(trained, run.lineage, digest)
    ended = f"{summary['outcome']} {summary['reason']}".strip() if summary else "still going on when this was written"
    rows = [
        ("run", f"{run.name}, experiment {run.settings.experiment}: {ended}"),
        ("model after round", str(trained.model.round)),
        ("model, SHA-256 of its arrays", f"`{digest}`"),
        ("rounds finalised / abandoned", f"{sum(bool(line['finalised']) for line in run.lines)} / {abandoned_rounds(run.lines)}"),
    ]
    if summary and (ledger := summary.get("ledger")):
        rows += [
            ("contract", f"`{ledger['contract']}` on chain {ledger['chain_id']}, block {ledger['block_number']}"),
            ("keys", f"{ledger['key_mode']}; accounts: {ledger['account_keys']}"),
        ]
    return rows


def _witnessed(trained: Trained, lineage: Lineage, digest: str) -> list[tuple[str, str]]:
    """What one site knows for sure: it opened every one of these models itself, and the ledger named the same."""
    settings = trained.run.settings
    params = task_params(settings)
    measured = "" if lineage.figures else ", which this site could not measure"
    state = f"the model that the run chose{measured}" if lineage.chosen else "this site's newest; none was chosen yet"
    return [
        ("run", f"`{lineage.run}` (digest), experiment {settings.experiment}: {state}"),
        ("model after round", str(trained.model.round)),
        ("model, SHA-256 of its arrays", f"`{digest}`, as this site opened it and the ledger names it"),
        ("rounds finalised / abandoned", f"{len(trained.run.lines)} / not known to a site"),
        ("contract", f"`{lineage.contract}` on chain {lineage.chain_id}"),
        ("keys", f"threshold {params.threshold} of {params.committee} or more; accounts: keys in the sites' own homes"),
    ]


def _rounds(lines: Sequence[RoundLine]) -> list[tuple[str, ...]]:
    return [
        (str(line["round"]), str(len(line["included"])), f"`{line.get('aggregate_digest', '')}`", line["coordinator"]["address"])
        for line in lines
        if line["finalised"]
    ]


def _figures(trained: Trained) -> list[str]:
    test, whose = _test(trained.run)
    if not test:
        return ["No test figures: the run had not ended, or no site could measure."]
    named = [
        ("pooled Dice (F1 over all pixels)", "dice"),
        ("pooled precision", "precision"),
        ("pooled recall", "recall"),
        ("mean Dice of positive slices", "mean-dice-of-positive-slices"),
        ("mean HD95 where truth and prediction have lesion, px", "mean-hd95-px"),
        ("the same, with the image diagonal where only one has", "mean-penalised-hd95-px"),
    ]
    rows = [(name, f"{test[key]:.4f}") for name, key in named if test.get(key) is not None]
    counted = [
        ("test slices", "num-slices"),
        ("of these with lesion", "num-positive"),
        ("missed", "num-missed"),
        ("spurious", "num-spurious"),
    ]
    rows += [(name, str(test[key])) for name, key in counted if key in test]
    return [whose, "", *_table(("figure", "value"), rows)]


def _test(run: Run) -> tuple[Mapping[str, Any], str]:
    """Figures on test parts, and whose they are; none where nothing was measured."""
    if run.lineage:
        reported = run.lineage.figures
        figures = pooled([reported], "num-examples") if "tp" in reported else {}
        return {k: v for k, v in figures.items() if math.isfinite(v)}, "On the test part of the one site that wrote this:"
    if run.summary is None:
        return {}, ""
    whose = of_sites(run.summary.get("tested")) or "the sites"
    return run.summary["test"], f"On the sites' own test parts, counts summed over {whose}:"


def _split(data: DataSettings) -> str:
    if data.kind == "phantom":
        return _PHANTOM
    return _BY_SLICE if data.split == "slice" else _BY_PATIENT


def _flat(tree: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    return [(f"{group}.{key}", _value(value)) for group, leaves in tree.items() for key, value in leaves.items()]


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
