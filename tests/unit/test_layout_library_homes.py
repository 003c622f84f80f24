"""One home per library, so that replacing one is one place's work."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "bahefl_flwr"
# Library: files or folders of the package that may import it.
HOMES = {
    "tenseal": {"he/ckks.py"},
    "web3": {"ledger/"},
    "eth": {"ledger/"},
    "flwr": {
        "_flwr_compat.py", "_flwr_deployment.py", "app.py", "attack/", "client.py", "driver.py", "replies.py", "round_log.py",
        "secure_run.py", "site/", "site_metrics.py", "strategy.py", "strategy_options.py", "task.py",
    },
    "ray": {"_flwr_compat.py"},
    "torch": {"lesion/"},
    "albumentations": {"lesion/augmentation.py"},
    "cv2": {"lesion/"},
    "scipy": {"lesion/"},
    "hydra": {"composition.py"},
    "omegaconf": {"composition.py"},
    "pydantic": {"homes.py", "setting_groups.py", "settings.py"},
    "matplotlib": {"report/"},
    "rich": {"cli.py", "live.py"},
    "typer": {"commands/", "console.py"},
    "safetensors": {"site/model.py"},
    "httpx": {"store/channel.py"},
    "starlette": {"store/service.py"},
    "uvicorn": {"store/serving.py"},
    "obstore": {"store/s3.py"},
    "packaging": {"doctor/machine.py"},
    "prometheus_client": {"metrics.py"},
}  # fmt: skip


def imported_by(file: Path) -> set[str]:
    """Top-level names of the libraries that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_in_its_home_only(library: str) -> None:
    """No other file names it."""
    users = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if library in imported_by(file)}
    assert not {user for user in users if not user.startswith(tuple(HOMES[library]))}


@pytest.mark.parametrize("library", ["torch", "tenseal", "web3", "albumentations", "ray", "matplotlib", "hydra"])
def test_the_command_line_starts_without_heavy_libraries(library: str) -> None:
    """--help and a misspelt option answer at once: nothing heavy stands at the top of a file that cli.py imports."""
    seen, queue = set(), ["cli"]
    while queue:
        file = PACKAGE / f"{queue.pop().replace('.', '/')}.py"
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bahefl_flwr."):
                name = node.module.removeprefix("bahefl_flwr.")
                queue += [name] if name not in seen else []
                seen.add(name)
            assert not (isinstance(node, (ast.Import, ast.ImportFrom)) and library in ast.unparse(node).split()[1].split("."))
