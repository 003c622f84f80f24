"""`bahefl predict`: masks and pictures of the lesions that a run's model finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bahefl_flwr.commands.output import RUN_HELP
from bahefl_flwr.errors import DataError, SettingsError

if TYPE_CHECKING:
    from bahefl_flwr.lesion.data import Images
    from bahefl_flwr.lesion.overlay import Mask

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=RUN_HELP)],
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="A folder of slices, or one with frames/.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for masks/ and overlays/.")],
) -> None:
    """Segment slices: a mask of 0 and 255 in each slice's own size, and a picture with the contour of what was found.

    Where FOLDER has masks/ too, the pictures also show their contours. Not for clinical use.
    """
    import numpy as np

    from bahefl_flwr.lesion.data import resized
    from bahefl_flwr.lesion.overlay import as_png, overlay
    from bahefl_flwr.lesion.prediction import BATCH, mask_of, probabilities, ready
    from bahefl_flwr.trained import open_trained

    trained = open_trained(run)
    network, settings = trained.network(), trained.run.settings
    engine = ready(settings.train)
    root = data.expanduser()
    names = _readable(root)
    if unlike := trained.unlike(names, data):
        typer.echo(f"warning: {unlike}", err=True)
    _make(out)
    found = 0
    for at in range(0, len(names), BATCH):
        batch = {name: _slice(root, name) for name in names[at : at + BATCH]}
        small = np.stack([resized(image, settings.data.image_size_px) for image, _ in batch.values()])  # (n, s, s)
        fields = probabilities(network, small, engine)[0]
        for (name, (image, truth)), field in zip(batch.items(), fields, strict=True):
            predicted = mask_of(field, len(image))
            found += bool(predicted.any())
            # Slices may be JPEG; what is written never is.
            file = name if name.lower().endswith(".png") else f"{name}.png"
            (out / "masks" / file).write_bytes(as_png(predicted.astype(np.uint8) * np.uint8(255)))
            (out / "overlays" / file).write_bytes(as_png(overlay(image, predicted, truth)))
    typer.echo(f"{out}: {len(names)} slices, lesion found in {found}; model of round {trained.model.round}")


def _readable(root: Path) -> list[str]:
    """Names of all slices, each read once, so that an unfit one stops the work before it starts."""
    from bahefl_flwr.lesion.data import image_names

    names, problems = sorted(image_names(_frames(root))), []
    for name in names:
        try:
            _slice(root, name)
        except DataError as error:
            problems.append(str(error))
    if problems or not names:
        raise DataError(f"{root}: " + ("\n  ".join(problems) or "no images here"))
    return names


def _frames(root: Path) -> Path:
    return root / "frames" if (root / "frames").is_dir() else root


def _slice(root: Path, name: str) -> tuple[Images, Mask | None]:
    """A slice in its own size, and its true mask where there is one."""
    from bahefl_flwr.lesion.data import load_frame, load_pair

    frames = _frames(root)
    if frames != root and (root / "masks" / name).is_file():
        image, lesion = load_pair(root, name)
        return image, lesion > 0
    return load_frame(frames / name), None


def _make(out: Path) -> None:
    """Never into a folder that holds something: its masks/ might be the true ones."""
    try:
        if out.exists() and any(out.iterdir()):
            raise SettingsError(f"{out} is not empty; give --out a new folder")
        for part in ("masks", "overlays"):
            (out / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{out} cannot be made: {error}") from error
