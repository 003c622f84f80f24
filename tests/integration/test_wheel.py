"""The wheel is complete: whoever installs it needs no checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_settings_compose_from_the_wheel_alone(installed: Path) -> None:
    """conf/ travels inside the package."""
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from bahefl_flwr import composition, settings\n"
        "print(composition.conf_folder(), settings.compose(['experiment=paper']).train.local_epochs)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(installed / "bahefl_flwr" / "conf"), "9"]


def test_the_wheel_has_types_and_licence(installed: Path) -> None:
    """Type checkers and lawyers both look here."""
    assert (installed / "bahefl_flwr" / "py.typed").is_file()
    assert next(installed.glob("*.dist-info/licenses/LICENSE")).read_text().lstrip().startswith("Apache License")


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    """The contract's artifacts included: nothing is compiled or fetched after an installation."""
    source = ROOT / "src"
    files = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.suffix in (".py", ".json", ".typed")}
    assert not {path for path in files if not (installed / path).is_file()}
