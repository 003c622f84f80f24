"""An application that `--app` names: a project's folder or a module, its own keys and ours."""

from pathlib import Path

import pytest

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.flower_project import FlowerProject, read_project
from bahefl_flwr.settings import compose

PROJECT = """
[tool.flwr.app.components]
serverapp = "digits.server_app:app"
clientapp = "digits.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 3
optimiser = "sgd"
model.width = 8
learning-rate = 0.5
bahefl.he.update_range = 0.5
bahefl.ledger.kind = "rpc"
bahefl.ledger.url = "https://node.example:8545/a,b"
bahefl.ledger.administrator = "it's here"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    return tmp_path


def test_a_projects_folder_names_both_apps_and_its_own_keys(folder: Path) -> None:
    """As Flower reads it, nested tables flattened; our keys are not among the application's."""
    project = read_project(str(folder))
    assert (project.serverapp, project.clientapp, project.folder) == ("digits.server_app:app", "digits.client_app:app", folder)
    assert project.config == {"num-server-rounds": 3, "optimiser": "sgd", "model.width": 8, "learning-rate": 0.5}


def test_our_keys_of_a_project_are_its_settings(folder: Path) -> None:
    """Whatever characters a value has, on top of the experiment for other applications."""
    _, ours = read_project(str(folder)).told([])
    settings = compose(ours)
    assert (settings.experiment, settings.he.update_range) == ("numpyclient", 0.5)
    assert (settings.ledger.url, settings.ledger.administrator) == ("https://node.example:8545/a,b", "it's here")


def test_the_command_line_wins_over_the_project(folder: Path) -> None:
    """Own keys keep their type, our keys may have their `bahefl.` or not."""
    words = ["num-server-rounds=5", "learning-rate=1", "optimiser=adam", "bahefl.he.update_range=2", "federation.sites=4"]
    project, ours = read_project(str(folder)).told(words)
    assert project.config == {"num-server-rounds": 5, "optimiser": "adam", "model.width": 8, "learning-rate": 1.0}
    settings = compose(ours)
    assert (settings.he.update_range, settings.federation.sites) == (2.0, 4)


def test_an_own_key_of_another_type_is_refused(folder: Path) -> None:
    """As the application would find out much later, in a worker."""
    with pytest.raises(SettingsError, match="num-server-rounds=many: the project's own value is 3, so this must be of type int"):
        read_project(str(folder)).told(["num-server-rounds=many"])


def test_a_module_of_the_project_here_runs_with_its_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a project's folder, either of its modules stands for it; another module has no keys."""
    monkeypatch.chdir(folder)
    assert read_project("digits.client_app") == read_project(str(folder))
    assert read_project("other") == FlowerProject(serverapp="other:server_app", clientapp="other:client_app")


def test_our_own_application_takes_settings_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run-config is our settings, whatever folder it is started in."""
    monkeypatch.chdir(folder)
    project, ours = read_project("bahefl_flwr.app").told(["experiment=smoke"])
    assert (project.config, ours) == (None, ["experiment=smoke"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project]", "is not a Flower project's"),
        ("[[[", "is not a Flower project's"),
        (PROJECT + "layers = [1, 2]\n", "layers is a list"),
    ],
)
def test_a_file_that_is_no_projects_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Naming the file and what it lacks."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_project(str(tmp_path))
