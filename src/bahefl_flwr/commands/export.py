"""`bahefl export`: a run's model as a file of its own, with its model card. Reads arguments and writes files, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bahefl_flwr.commands.output import RUN_HELP
from bahefl_flwr.errors import SettingsError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=RUN_HELP)],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.safetensors]", help="The model; FILE.md is its card.")] = None,
    onnx: Annotated[Path | None, typer.Option("--onnx", metavar="FILE.onnx", help="The network, for other runtimes.")] = None,
) -> None:
    """Write the model, the same bytes as every site has, and what it is: lineage, training, figures, intended use, limits."""
    from bahefl_flwr.model_card import card
    from bahefl_flwr.trained import open_trained

    if file is None and onnx is None:
        raise SettingsError("give FILE.safetensors, --onnx FILE.onnx, or both")
    trained = open_trained(run)
    if file is not None:
        # Built once, so that nothing is exported as a segmentation model that is none.
        trained.network()
        text = card(trained, file.name).encode()
        _write(file, trained.file.read_bytes())
        _write(file.with_suffix(".md"), text)
    if onnx is not None:
        from bahefl_flwr.lesion.onnx_export import to_onnx

        _write(onnx, to_onnx(trained.network(), trained.run.settings.data.image_size_px))


def _write(path: Path, content: bytes) -> None:
    from hashlib import sha256

    from bahefl_flwr.durable import atomic_write

    if not path.parent.is_dir():
        raise SettingsError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        atomic_write(path, content, mode=0o644)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error}") from error
    typer.echo(f"{path}  {len(content):,} bytes  sha256 {sha256(content).hexdigest()}")
