"""Secure runs in which some sites attack: real encryption, ledger and opening; only the updates are hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message

from bahefl_flwr import app
from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.client import attacking
from bahefl_flwr.attack.crafting import knowledge
from bahefl_flwr.attack.roster import attackers, attacking_members
from bahefl_flwr.he.params import decoding_error_std
from bahefl_flwr.run_folder import attack_facts
from bahefl_flwr.settings import compose
from bahefl_flwr.site.client_app import ClientFn
from bahefl_flwr.site.model import MODEL_FILE, load_model
from bahefl_flwr.site.state import task_params
from federation_run import SMALL, Run, federated_run, known_update
from in_process_grid import Deliver, Tamper

SITES = range(4)
START = 2
# Per parameter over three rounds: six deviations of what the noise budget allows.
CLOSE = 6 * 3**0.5 * decoding_error_std(task_params(compose(SMALL)))
CLEAN = {"federation.rounds": 3, "federation.weighting": "uniform", "attack.start_round": START, "screening.kind": '"off"'}
SETTINGS = [f"{key}={value}" for key, value in CLEAN.items()]


def flat(site: int, number: int) -> np.ndarray:
    return np.concatenate([u.reshape(-1) for u in known_update(site, number)]).astype(np.float64)


def final(run: Run) -> np.ndarray:
    return load_model(run.site_folder(0) / MODEL_FILE).vector()


def mean(updates: list[np.ndarray]) -> np.ndarray:
    """What a round adds to the model: clipped, and every site weighs the same."""
    return np.mean(np.clip(updates, -0.25, 0.25), axis=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two of four sites turn their updates round from the second round on."""
    return federated_run(tmp_path_factory.mktemp("run"), *SETTINGS, "attack=sign_flip", "attack.fraction=0.5", wrap=attacking)


def test_the_opened_model_is_what_honest_and_hostile_updates_give(run: Run) -> None:
    """Honest in round 1; from round 2 on the attackers' updates count with the sign turned."""
    hostile = attackers(run.settings)
    expected = np.full(1208, 0.5)
    for number in (1, 2, 3):
        signs = {site: -1 if site in hostile and number >= START else 1 for site in SITES}
        expected += mean([signs[site] * flat(site, number) for site in SITES])
    assert len(hostile) == 2
    assert np.abs(final(run) - expected).max() < CLOSE


def test_attackers_look_honest(run: Run) -> None:
    """They commit in every round, with the examples and metrics of honest sites, and nobody leaves them out."""
    assert [line["committed"] for line in run.lines] == [[0, 1, 2, 3]] * 3
    assert all(line["train_loss"] == pytest.approx(1 / number) for number, line in enumerate(run.lines, 1))
    assert all(line["excluded"] == {} for line in run.lines)


def test_the_summary_can_name_the_attackers_as_members(run: Run) -> None:
    """By the addresses on the ledger, whatever the order of registration was."""
    members = attacking_members(run.settings, run.folder, run.members)
    addresses = {member.index: member.address for member in run.members}
    assert {addresses[index] for index in members} == {run.address(site) for site in attackers(run.settings)}
    assert attack_facts(run.lines, "sign_flip", members, START)["members"] == list(members)


def test_colluders_craft_from_opened_models_and_their_own_updates_alone(tmp_path: Path) -> None:
    """ALIE in round 2 is what the crafting function makes of the two colluders' updates and the models of rounds 1 and 2."""
    run = federated_run(tmp_path, *SETTINGS, "federation.rounds=2", "attack=alie", "attack.fraction=0.5", wrap=attacking)
    hostile = attackers(run.settings)
    first = np.full(1208, 0.5)
    second = first + mean([flat(site, 1) for site in SITES])
    benign = np.stack([flat(site, 2) for site in hostile])
    crafted = ATTACKS["alie"].craft(knowledge(benign, benign, [first, second], (0,)))
    honest = [flat(site, 2) for site in SITES if site not in hostile]
    assert np.abs(final(run) - second - mean([*honest, *crafted])).max() < CLOSE


def test_a_repeated_message_changes_nothing(tmp_path: Path) -> None:
    """Every training message is delivered twice to every site: the same model comes out."""

    def twice(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type == "train":
                deliver(message)
            return deliver(message)

        return tamper

    settings = (*SETTINGS, "federation.rounds=2", "attack=gaussian", "attack.fraction=0.5")
    once = federated_run(tmp_path / "once", *settings, wrap=attacking)
    again = federated_run(tmp_path / "twice", *settings, wrap=attacking, tamper=twice)
    assert np.abs(final(again) - final(once)).max() < CLOSE


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lesion_sites_that_invert_their_masks_harm_the_model(tmp_path: Path) -> None:
    """The shipped application wraps its clients: with half of the sites hostile the trained model is worse on the test parts."""

    def shipped(_: ClientFn) -> ClientFn:
        def client_fn(context: Context) -> object:
            return app._client_fn(context)

        return client_fn  # type: ignore[return-value]

    lesion = [
        "experiment=smoke", "federation.sites=4", "federation.rounds=2", "data.slices=100", "data.image_size_px=32",
        "model.depth=3", "train.device=cpu", "he.update_range=1", f"data.cache={tmp_path}", "federation.weighting=uniform",
        "attack.start_round=2", 'screening.kind="off"',
    ]  # fmt: skip
    losses = {
        name: federated_run(
            tmp_path / name, *lesion, f"attack={name}", "attack.fraction=0.5", wrap=shipped,
            strategy_options={"evaluate_metrics_aggr_fn": app.pooled_evaluation},
        ).strategy.test_metrics["loss"]  # type: ignore[union-attr]
        for name in ("none", "mask_inversion_x10")
    }  # fmt: skip
    assert losses["mask_inversion_x10"] > losses["none"] + 0.05
