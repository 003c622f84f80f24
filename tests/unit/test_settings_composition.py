"""conf/ composed with overrides: right values, and errors that name what was meant."""

import itertools

import pytest

from bahefl_flwr.composition import conf_folder, expand_sweep, experiments
from bahefl_flwr.errors import DataError, SettingsError
from bahefl_flwr.settings import check_data_folder, compose


def test_the_paper_experiment_is_the_papers_recipe() -> None:
    """Every value that section 4 of the paper names."""
    paper = compose(["experiment=paper"])
    train = paper.train
    assert (train.lr, train.weight_decay, train.clip_norm, train.local_epochs) == (1e-4, 1e-4, 1.0, 9)
    assert (train.schedule, train.warmup_epochs, train.restart_epochs, train.restart_mult) == ("restarts", 5, 5, 2)
    assert (train.dice_early, train.dice_middle, train.dice_late, train.positive_fraction) == (1.0, 0.7, 0.5, 0.0)
    assert (paper.federation.rounds, paper.federation.patience, paper.he.threshold) == (100, 7, 1)
    assert (paper.data.image_size_px, paper.data.alpha, paper.model.unshuffle) == (256, 0.5, 1)


def test_the_smoke_experiment_is_small() -> None:
    """Two rounds, few small slices, a narrow model."""
    smoke = compose(["experiment=smoke"])
    assert (smoke.federation.rounds, smoke.data.image_size_px, smoke.model.width) == (2, 64, 8)
    assert smoke.data.slices <= 120


@pytest.mark.parametrize("experiment", experiments())
def test_every_experiment_names_itself_and_its_runs(experiment: str) -> None:
    """`experiment` and `run.name` tell the runs apart."""
    settings = compose([f"experiment={experiment}"])
    assert (settings.experiment, settings.run.name) == (experiment, experiment)


def test_every_choice_of_every_group_composes() -> None:
    """No file of conf/ is broken."""
    choices = [f"{path.parent.name}={path.stem}" for path in conf_folder().glob("*/*.yaml")]
    elsewhere = ("ledger=rpc", "ledger=hospitals", "store=http", "store=s3")
    for choice in set(choices) - set(elsewhere):
        assert compose([choice])
    for ledger in elsewhere[:2]:
        assert compose([ledger, "ledger.url=http://127.0.0.1:8545"]).ledger.kind == "rpc"
    assert compose(["store=http", "store.url=http://127.0.0.1:8790"]).store.kind == "http"
    assert compose(["store=s3", "store.url=s3://bucket/prefix"]).store.kind == "s3"


def test_an_override_wins_over_the_experiment() -> None:
    """What the user types last and most exactly is what counts."""
    assert compose(["train.lr=1e-3", "experiment=paper"]).train.lr == 1e-3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trian.lr=1"], "trian.lr: no such setting; did you mean train.lr"),
        (["train.lrr=1"], "did you mean train.lr?"),
        (["trian=paper"], "did you mean train?"),
        (
            ["experiment=papre"],
            "experiment=papre: no such choice; did you mean paper?; there are default, numpyclient, paper",
        ),
        (["data=nope"], "there are folder, phantom"),
        (["train.lr=[1"], "not of the form key=value"),
        (["=3"], "no such setting"),
        (["train.lr"], "not of the form key=value"),
        (["+train.new=1"], "neither added"),
        (["~train.lr"], "neither added"),
        (["hydra.run.dir=x"], "hydra.run.dir: no such setting"),
        (["train.lr=1,2"], "python -m bahefl_flwr -m train.lr=1,2"),
        (["train.lr=${nope}"], "Interpolation key 'nope' not found"),
        (["federation.sites=4", "he.threshold=9"], "he.threshold=9 of a committee of 4 can never open anything"),
        (["federation.sites=5", "he.threshold=2"], "he.threshold=2 is not a majority of the committee of 5"),
        (["federation.sites=2"], "federation.min_sites=3 exceeds federation.sites=2"),
        (["data.alpha=0"], "data.alpha: Input should be greater than 0 (got 0)"),
        (["data.alpha=inf"], "data.alpha: Input should be a finite number"),
        (["federation.rounds=ten"], "federation.rounds: Input should be a valid integer"),
        (["train.schedule=cos"], "train.schedule: Input should be 'cosine' or 'restarts'; did you mean cosine? (got 'cos')"),
        (["data.train=0.9"], "leave nothing for the test part"),
        (["train.stage_middle_at=0.9"], "train.stage_middle_at=0.9 is after"),
        (["ledger=rpc"], "ledger.kind=rpc needs ledger.url"),
    ],
)
def test_a_wrong_override_is_refused_with_what_to_do(overrides: list[str], message: str) -> None:
    """Each wrong override is refused in words of the user's, never Hydra's or pydantic's own."""
    with pytest.raises(SettingsError) as refused:
        compose(overrides)
    assert message in str(refused.value)
    assert "HYDRA" not in str(refused.value)


def test_all_wrong_values_are_named_at_once() -> None:
    """Two mistakes take one attempt to find."""
    with pytest.raises(SettingsError) as refused:
        compose(["data.alpha=0", "train.lr=-1"])
    assert "data.alpha" in str(refused.value)
    assert "train.lr" in str(refused.value)


@pytest.mark.parametrize(("root", "message"), [("", "it is not set"), ("/nowhere", "has no frames and no masks")])
def test_a_missing_data_folder_is_a_data_error(root: str, message: str) -> None:
    """Exit code 3, before anything is started."""
    with pytest.raises(DataError, match=message):
        check_data_folder(compose(["data=folder", f"data.root={root}"]).data)


def test_a_sweep_is_the_product_of_its_axes() -> None:
    """In Hydra's order: the last axis varies fastest."""
    jobs = expand_sweep(["train.lr=1e-4,3e-4", "experiment=smoke", "data.alpha=0.1,0.5"])
    expected = itertools.product(
        ("train.lr=0.0001", "train.lr=0.0003"), ("experiment=smoke",), ("data.alpha=0.1", "data.alpha=0.5")
    )
    assert jobs == list(expected)


def test_a_sweep_over_a_misspelt_choice_is_refused() -> None:
    """One bad choice among good ones is found before the first job."""
    with pytest.raises(SettingsError, match="experiment=papre: no such choice"):
        expand_sweep(["experiment=smoke,papre"])
