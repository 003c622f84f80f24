"""Settings as Flower's run-config carries them: the same in both directions, from both commands."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from bahefl_flwr.composition import compose_tree, flatten
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.settings import compose, from_run_config

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def run_config() -> dict[str, Any]:
    """What `flwr run .` hands over when the user changes nothing."""
    return flatten(tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"])


def test_pyproject_carries_the_default_experiment() -> None:
    """`flwr run .` and flower-simulation start from the same values; on failure, copy the text below into pyproject.toml."""
    tree = compose_tree(())
    expected = {"resolved": False, "experiment": tree.pop("experiment"), **tree}
    text = tomli_w.dumps({"tool": {"flwr": {"app": {"config": expected}}}})
    assert tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"] == expected, f"pyproject.toml needs:\n{text}"


def test_settings_come_back_from_their_flat_form() -> None:
    """Nothing is lost on the way through a run-config of scalars."""
    settings = compose(["experiment=paper", "train.lr=0.002"])
    flat = settings.flat()
    assert all(isinstance(value, (bool, int, float, str)) for value in flat.values())
    assert from_run_config(flat) == settings


def test_the_default_run_config_is_the_default_experiment(run_config: dict[str, Any]) -> None:
    """An unchanged `flwr run .` is experiment=default."""
    assert from_run_config(run_config) == compose()


def test_a_run_config_may_name_another_experiment(run_config: dict[str, Any]) -> None:
    """`flwr run . --run-config 'experiment="smoke"'`."""
    assert from_run_config({**run_config, "experiment": "smoke"}) == compose(["experiment=smoke"])


def test_a_changed_key_overrides_the_named_experiment(run_config: dict[str, Any]) -> None:
    """`flwr run . --run-config 'experiment="paper" train.lr=0.001'`."""
    settings = from_run_config({**run_config, "experiment": "paper", "train.lr": 0.001})
    assert settings == compose(["experiment=paper", "train.lr=0.001"])


def test_final_values_are_not_composed_again() -> None:
    """A value that happens to equal the default's survives under another experiment."""
    default = compose().train.lr
    assert from_run_config(compose(["experiment=paper", f"train.lr={default}"]).flat()).train.lr == default


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"federation.rounds": "ten"}, "federation.rounds: Input should be a valid integer"),
        ({"train.lrr": 1}, "train.lrr: no such setting; did you mean train.lr?"),
        ({"experiment": "papre"}, "did you mean paper?"),
    ],
)
def test_a_wrong_run_config_is_refused(run_config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    """Flower checks no types and no experiment's name: we do."""
    with pytest.raises(SettingsError) as refused:
        from_run_config({**run_config, **change})
    assert message in str(refused.value)


def test_a_missing_key_is_named(run_config: dict[str, Any]) -> None:
    """A run-config of an older release does not pass as complete."""
    del run_config["train.lr"]
    with pytest.raises(SettingsError, match=r"train\.lr: missing"):
        from_run_config(run_config)


@pytest.mark.parametrize(
    "override", ["train.threads=2", "train.device=cpu", "run.name=x", "data.root=/x", "store.path=elsewhere"]
)
def test_what_a_site_decides_for_itself_is_not_in_the_digest(override: str) -> None:
    """Sites with other hardware or folders still agree on the protocol's settings."""
    assert compose([override]).digest() == compose().digest()


@pytest.mark.parametrize("override", ["train.lr=0.5", "run.seed=7", "he.update_range=1"])
def test_what_sites_must_share_is_in_the_digest(override: str) -> None:
    """A site that trains, starts or encrypts differently is noticed."""
    assert compose([override]).digest() != compose().digest()


def test_another_applications_keys_are_its_own() -> None:
    """Keys of another project, even of the names of our application's groups, are not ours; what is absent is as in conf/."""
    assert from_run_config({"num-server-rounds": 3, "train.lr": "fast", "model.name": "resnet"}) == compose(
        ["experiment=numpyclient"]
    )


def test_our_keys_stand_beside_another_applications() -> None:
    """`bahefl.` in front marks a setting of ours, an experiment included."""
    config: dict[str, Any] = {"num-server-rounds": 3, "bahefl.experiment": "smoke", "bahefl.he.update_range": 0.5}
    assert from_run_config(config) == compose(["experiment=smoke", "he.update_range=0.5"])


def test_final_settings_beside_another_applications_come_back() -> None:
    """What flower-simulation hands to another application: its own keys, and all of ours."""
    settings = compose(["experiment=paper", "he.update_range=0.5"])
    config = settings.beside({"num-server-rounds": 3, "lr": 0.1})
    assert from_run_config(config) == settings
    assert (config["num-server-rounds"], config["lr"]) == (3, 0.1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bahefl.he.treshold": 3}, "did you mean he.threshold"),
        ({"he.threshold": 3}, "write bahefl.he.threshold"),
        ({"bahefl.experiment": "smok"}, "did you mean smoke"),
    ],
)
def test_a_misspelt_setting_beside_another_applications_is_refused(config: dict[str, Any], message: str) -> None:
    """A guarantee that somebody asked for is not dropped as a key of the application."""
    with pytest.raises(SettingsError) as refused:
        from_run_config(config)
    assert message in str(refused.value)
