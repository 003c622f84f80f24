"""`bahefl data`: look at a data folder and at how a simulation would split it. Reads arguments and prints, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bahefl_flwr.commands.output import Format

if TYPE_CHECKING:
    from bahefl_flwr.lesion.inspection import Inspection
    from bahefl_flwr.setting_groups import DataSettings

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Look at CT slices before training on them."
)

_Format = Annotated[Format, typer.Option("--format", help="How the result is printed.")]
_UNUSABLE = 3
_PHANTOM = "phantom"
# So many scans are named one by one; of more, only how many there are.
_NAMED_SCANS = 20


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with frames/ and masks/, same file name in both.")],
    format: _Format = Format.TEXT,
) -> None:
    """Count, measure and judge a folder: exit 0 if training would take it, 3 if not, with every reason."""
    from bahefl_flwr.lesion.inspection import inspect as look

    found = look(folder.expanduser())
    facts = _facts(found)
    typer.echo(json.dumps(facts, indent=2) if format is Format.JSON else _text(found, facts))
    raise typer.Exit(0 if found.usable else _UNUSABLE)


def _facts(found: Inspection) -> dict[str, Any]:
    return {
        "folder": str(found.root),
        "usable": found.usable,
        "slices": len(found.slices),
        "with_lesion": found.positive,
        "lesion_share": found.lesion_share,
        "sizes_px": {str(side): count for side, count in found.sizes.items()},
        "scans": found.scans,
        "without_scan": sum(slice_.scan is None for slice_ in found.slices),
        "problems": list(found.problems),
        "oddities": list(found.oddities),
    }


def _text(found: Inspection, facts: dict[str, Any]) -> str:
    lines = [
        f"{found.root}: {facts['slices']} slices, {found.positive} with lesion, {100 * found.lesion_share:.2f} % of all pixels",
        "sizes: " + (", ".join(f"{side}x{side} ({count})" for side, count in found.sizes.items()) or "none"),
        f"scans: {len(found.scans)} told by the names, {facts['without_scan']} slices of unknown scan",
    ]
    if len(found.scans) <= _NAMED_SCANS:
        lines += [f"  {scan}: {count} slices" for scan, count in found.scans.items()]
    for title, entries in (
        ("problem(s), mend or remove these files", found.problems),
        ("oddities, worth a look", found.oddities),
    ):
        if entries:
            lines += [f"{len(entries)} {title}:", *(f"  {entry}" for entry in entries)]
    return "\n".join([*lines, "usable" if found.usable else "not usable"])


@app.command()
def partition(
    source: Annotated[str, typer.Argument(metavar="FOLDER|phantom", help="A folder with frames/ and masks/, or the phantom.")],
    sites: Annotated[int | None, typer.Option("--sites", min=2, help="federation.sites")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="data.alpha; smaller is less alike")] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="slice|patient", help="data.split")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="run.seed")] = None,
    size: Annotated[int | None, typer.Option("--size", help="data.image_size_px")] = None,
    slices: Annotated[int | None, typer.Option("--slices", help="data.slices, of the phantom")] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", help="Where what is not given comes from.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw it, too.")] = None,
    format: _Format = Format.TEXT,
) -> None:
    """Show who gets how many slices in a simulation with these settings."""
    from bahefl_flwr.lesion.partition import PARTS, table, tally
    from bahefl_flwr.lesion.sites import shares
    from bahefl_flwr.settings import check_data_folder, compose

    given = {
        "experiment": experiment, "federation.sites": sites, "data.alpha": alpha, "data.split": split, "run.seed": seed,
        "data.image_size_px": size, "data.slices": slices,
    }  # fmt: skip
    # How few sites make a round has nothing to do with the split.
    settings = compose(["federation.min_sites=2", *(f"{key}={value}" for key, value in given.items() if value is not None)])
    data = _from(source, settings.data)
    check_data_folder(data)
    flags, parts = shares(data, sites=settings.federation.sites, seed=settings.run.seed)
    counts = tally(parts, flags)
    if picture:
        _draw(picture, counts, PARTS)
    if format is Format.JSON:
        rows = [dict(zip(PARTS, ({"without": int(n), "with": int(p)} for n, p in row), strict=True)) for row in counts]
        typer.echo(json.dumps({"alpha": data.alpha, "split": data.split, "seed": settings.run.seed, "sites": rows}, indent=2))
        return
    typer.echo(
        f"{len(flags)} slices, alpha {data.alpha:g}, split by {data.split}, seed {settings.run.seed}; with + without lesion"
    )
    typer.echo(table(counts))


def _from(source: str, settings: DataSettings) -> DataSettings:
    if source == _PHANTOM:
        return settings
    return settings.model_copy(update={"kind": "folder", "root": source})


def _draw(path: Path, counts: Any, parts: tuple[str, ...]) -> None:
    from bahefl_flwr.durable import atomic_write
    from bahefl_flwr.errors import SettingsError
    from bahefl_flwr.report.split_picture import split_picture

    try:
        atomic_write(path, split_picture(counts, parts), mode=0o644)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error}") from error
