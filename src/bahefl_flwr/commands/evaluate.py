"""`bahefl evaluate`: a run's model on a folder of slices. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bahefl_flwr.commands.output import RUN_HELP, Format

if TYPE_CHECKING:
    from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts
    from bahefl_flwr.trained import Trained

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_NAMED_SCANS = 20


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=RUN_HELP)],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="A folder with frames/ and masks/.")],
    field_mm: Annotated[
        float | None, typer.Option("--field-mm", min=1, help="Side of every slice in mm, for distances in mm.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="How the result is printed.")] = Format.TEXT,
) -> None:
    """Measure a run's model on slices with known lesions: pooled, per positive slice, and distances of contours."""
    from bahefl_flwr.lesion.data import load_folder
    from bahefl_flwr.lesion.prediction import judged, ready
    from bahefl_flwr.trained import open_trained

    trained = open_trained(run)
    network = trained.network()
    settings = trained.run.settings
    slices = load_folder(data.expanduser(), settings.data.image_size_px)
    if unlike := trained.unlike(slices.names, data):
        typer.echo(f"warning: {unlike}", err=True)
    engine = ready(settings.train)
    each = list(judged(network, slices, engine))
    facts = {
        "run": trained.run.name,
        "round": trained.model.round,
        "model_digest": trained.digest,
        "data": str(data),
        "trained_on": settings.data.kind,
        "seen_in_training": _seen(trained, data),
        "image_size_px": settings.data.image_size_px,
        "computed_in": str(engine),
        **_figures(sum(each[1:], each[0]), settings.data.image_size_px, field_mm),
        "scans": _by_scan(slices.names, each),
        "each_slice": [{"name": name, **_one(e)} for name, e in zip(slices.names, each, strict=True)],
    }
    typer.echo(json.dumps(facts, indent=2) if format is Format.JSON else _text(facts))


def _seen(trained: Trained, data: Path) -> bool:
    """Whether these are the slices that the run was trained on."""
    own = trained.run.settings.data
    return own.kind == "folder" and Path(own.root).expanduser().resolve() == data.expanduser().resolve()


def _figures(total: Evaluation, side_px: int, field_mm: float | None) -> dict[str, Any]:
    """Every figure under a name that says how it is averaged. What cannot be computed is null, and `undefined` says why."""
    p = total.pixels
    pixels = p.tp + p.fp + p.fn + p.tn
    distances = {
        "mean_px": _finite(total.mean_hd95_px),
        "pairs": total.hd95_pairs,
        "missed": total.missed,
        "spurious": total.spurious,
        "both_empty": total.both_empty,
        "mean_px_with_diagonal_for_one_empty": _finite(total.mean_penalised_hd95_px),
    }
    if field_mm:
        names = ("mean_px", "mean_px_with_diagonal_for_one_empty")
        distances |= {n.replace("px", "mm"): v * field_mm / side_px for n in names if (v := distances[n]) is not None}
    return {
        "slices": total.slices,
        "positive_slices": total.positive_slices,
        "pooled": {
            "tp": p.tp, "fp": p.fp, "fn": p.fn, "tn": p.tn, **_ratios(p, "dice", "precision", "recall"),
            "accuracy": (p.tp + p.tn) / pixels, **_ratios(p, "score"),
        },
        "undefined": dict(p.undefined),
        "mean_dice_of_positive_slices": _finite(total.mean_dice_of_positive_slices),
        "hd95": distances,
    }  # fmt: skip


def _ratios(pixels: PixelCounts, *names: str) -> dict[str, float | None]:
    """Pooled ratios by name; null where they have no meaning, whatever the convention inside a run says."""
    return {name: None if name in pixels.undefined else getattr(pixels, name) for name in names}


def _finite(value: float) -> float | None:
    return value if value == value else None  # noqa: PLR0124  nan is the one value that differs from itself


def _by_scan(names: tuple[str, ...], each: list[Evaluation]) -> dict[str, Any]:
    from bahefl_flwr.lesion.data import scan_of

    scans: dict[str, Evaluation] = {}
    for name, evaluation in zip(names, each, strict=True):
        if (scan := scan_of(name)) is not None:
            scans[scan] = scans[scan] + evaluation if scan in scans else evaluation
    return {
        scan: {"slices": e.slices, "positive_slices": e.positive_slices, **_ratios(e.pixels, "dice", "recall")}
        for scan, e in sorted(scans.items())
    }


def _one(e: Evaluation) -> dict[str, Any]:
    """A slice's Dice is null where it has no lesion: there is nothing to overlap with."""
    p = e.pixels
    return {
        "tp": p.tp, "fp": p.fp, "fn": p.fn, "tn": p.tn, **_ratios(p, "dice"),
        "hd95_px": e.hd95_sum_px if e.hd95_pairs else None,
    }  # fmt: skip


def _text(facts: dict[str, Any]) -> str:
    pooled, hd95 = facts["pooled"], facts["hd95"]
    lines = [
        f"model of round {facts['round']}, SHA-256 {facts['model_digest'][:16]}..., run {facts['run']}",
        f"{facts['data']}: {facts['slices']} slices, {facts['positive_slices']} with lesion, at {facts['image_size_px']} px",
        f"computed in {facts['computed_in']}",
        "",
        "pooled over all pixels: "
        + ", ".join(f"{name} {_number(pooled[name])}" for name in ("dice", "precision", "recall", "accuracy")),
        *_undefined(facts["undefined"]),
        f"mean of the {facts['positive_slices']} positive slices: dice {_number(facts['mean_dice_of_positive_slices'])}",
        f"HD95: mean {_distance(hd95, 'mean')} over {hd95['pairs']} slices with lesion in truth and prediction",
        f"      {hd95['missed']} missed and {hd95['spurious']} spurious slices have none; {hd95['both_empty']} are empty in both",
        f"      mean {_distance(hd95, 'mean', '_with_diagonal_for_one_empty')} with these as the image diagonal",
    ]
    if 1 < len(facts["scans"]) <= _NAMED_SCANS:
        lines += ["", "scan: pooled dice, recall"]
        for scan, s in facts["scans"].items():
            lines.append(f"  {scan} ({s['slices']} slices): {_number(s['dice'])}, {_number(s['recall'])}")
    if facts["seen_in_training"]:
        lines += ["", "CAUTION: the run was trained on slices of this folder; these figures are better than on other patients"]
    return "\n".join(lines)


def _undefined(reasons: dict[str, str]) -> list[str]:
    """Why a figure is "-": a line a reason."""
    told = {reason: [name for name, why in reasons.items() if why == reason] for reason in reasons.values()}
    return [f"  -: {reason}, so {', '.join(names)} would mean nothing" for reason, names in told.items()]


def _distance(hd95: dict[str, Any], start: str, end: str = "") -> str:
    units = [
        f"{hd95[f'{start}_{unit}{end}']:.1f} {unit}" for unit in ("px", "mm") if hd95.get(f"{start}_{unit}{end}") is not None
    ]
    return " = ".join(units) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
