"""One colluder as the site sees it: honest at first, then the group's update, once a round, whoever is asked and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.client import NumPyClient

from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.client import AttackingClient
from bahefl_flwr.attack.group import Group
from bahefl_flwr.errors import ProtocolError, SettingsError, TrainingError
from bahefl_flwr.setting_groups import AttackName
from federation_run import KnownClient, known_update, well_behaved

SITES = (1, 3, 4)
MODEL = KnownClient(0, well_behaved).get_parameters({})


class Counted(KnownClient):
    """Notes its trainings; on poisoned slices it moves the other way, twice as far."""

    def __init__(self, site: int, trained: list[tuple[int, bool]], poisoned: bool = False) -> None:
        super().__init__(site, well_behaved)
        self.trained, self.poisoned = trained, poisoned

    def with_training(self, change: object) -> Counted:
        return Counted(self.site, self.trained, poisoned=True)

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        self.trained.append((self.site, self.poisoned))
        moved, examples, metrics = super().fit(parameters, config)
        if self.poisoned:
            moved = [p - 2 * (m - p) for p, m in zip(parameters, moved, strict=True)]
        return moved, examples, {**metrics, "precision": "fp32"}


class Colluders:
    """A group in one folder; each call builds the asked client anew, as Flower does."""

    def __init__(self, folder: Path, name: AttackName, start_round: int = 1) -> None:
        self.trained: list[tuple[int, bool]] = []
        self.group = Group(folder=folder, sites=SITES, seed=1, attack=ATTACKS[name])
        self.start_round = start_round
        self.client_of: Callable[[int], NumPyClient] = lambda k: Counted(k, self.trained)

    def client(self, site: int) -> AttackingClient:
        return AttackingClient(self.group, site=site, start_round=self.start_round, client_of=self.client_of)

    def update(self, site: int, number: int, model: list[Any] = MODEL) -> np.ndarray:
        """What the site would send: (P,)."""
        moved = self.client(site).fit(model, {"server-round": number, "rounds": 9})[0]
        return np.concatenate([(m - p).reshape(-1) for m, p in zip(moved, model, strict=True)])


def flat(site: int, number: int) -> np.ndarray:
    return np.concatenate([u.reshape(-1) for u in known_update(site, number)])


def test_before_the_start_a_colluder_is_honest(tmp_path: Path) -> None:
    """It trains itself alone, and sends that."""
    group = Colluders(tmp_path, "sign_flip", start_round=3)
    assert np.allclose(group.update(3, 2), flat(3, 2), atol=1e-6)
    assert group.trained == [(3, False)]


def test_from_the_start_on_it_sends_the_crafted_update(tmp_path: Path) -> None:
    """In that round already."""
    group = Colluders(tmp_path, "sign_flip", start_round=3)
    assert np.allclose(group.update(3, 3), -flat(3, 3), atol=1e-6)


def test_the_group_trains_each_site_once_a_round(tmp_path: Path) -> None:
    """Whoever is asked first trains everybody; the others read, and a repeated message gives the same bytes."""
    group = Colluders(tmp_path, "mask_inversion")
    first = {site: group.update(site, 1) for site in SITES}
    again = {site: group.update(site, 1) for site in SITES}
    assert sorted(group.trained) == [(site, poisoned) for site in SITES for poisoned in (False, True)]
    assert all(np.array_equal(first[site], again[site]) for site in SITES)
    assert np.allclose(first[4], -2 * flat(4, 1), atol=1e-6)


def test_an_attack_on_updates_alone_poisons_no_slices(tmp_path: Path) -> None:
    """Each site trains honestly, once."""
    group = Colluders(tmp_path, "alie")
    group.update(1, 1)
    assert sorted(group.trained) == [(site, False) for site in SITES]


def test_another_model_in_the_same_round_is_another_update(tmp_path: Path) -> None:
    """An update belongs to the model that it starts from."""
    group = Colluders(tmp_path, "gaussian")
    before = group.update(1, 2)
    group.update(1, 2, [a + 1 for a in MODEL])
    assert len(group.trained) == 6
    assert np.array_equal(group.update(1, 2), before)


def test_all_sites_asked_at_once_share_the_work_and_end(tmp_path: Path) -> None:
    """No training happens twice, nobody waits for ever, and each gets its own row."""
    group = Colluders(tmp_path, "mask_inversion_norm")
    with ThreadPoolExecutor(len(SITES)) as pool:
        updates = dict(zip(SITES, pool.map(lambda site: group.update(site, 1), SITES), strict=True))
    assert sorted(group.trained) == [(site, poisoned) for site in SITES for poisoned in (False, True)]
    assert all(np.array_equal(group.update(site, 1), updates[site]) for site in SITES)
    assert len({update.tobytes() for update in updates.values()}) == len(SITES)


def test_a_second_site_takes_over_what_nobody_has_begun(tmp_path: Path) -> None:
    """While one training goes on, another site does the others."""
    group = Colluders(tmp_path, "sign_flip")
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Counted):
        def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
            if self.site == 1:
                begun.set()
                assert go_on.wait(20)
            elif len(self.trained) == 1:
                go_on.set()
            return super().fit(parameters, config)

    group.client_of = lambda k: Slow(k, group.trained)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(group.update, 1, 1)
        assert begun.wait(20)
        second = pool.submit(group.update, 3, 1)
        assert np.allclose(first.result(30), -flat(1, 1), atol=1e-6)
        assert np.allclose(second.result(30), -flat(3, 1), atol=1e-6)
    assert sorted(group.trained) == [(site, False) for site in SITES]


def test_a_training_that_failed_is_tried_again(tmp_path: Path) -> None:
    """An error leaves nothing behind, neither a file nor a lock."""
    group = Colluders(tmp_path, "sign_flip")
    honest, broken = group.client_of, [4]

    def client_of(site: int) -> NumPyClient:
        if site in broken:
            broken.clear()
            raise TrainingError("no such luck")
        return honest(site)

    group.client_of = client_of
    with pytest.raises(TrainingError, match="no such luck"):
        group.update(1, 1)
    assert np.allclose(group.update(1, 1), -flat(1, 1), atol=1e-6)
    assert sorted(group.trained) == [(site, False) for site in SITES]


def test_figures_are_an_honest_sites(tmp_path: Path) -> None:
    """Examples and metrics are those of honest training, texts included."""
    group = Colluders(tmp_path, "mask_inversion")
    _, examples, metrics = group.client(3).fit(MODEL, {"server-round": 2, "rounds": 9})
    assert (examples, metrics) == (40, {"loss": 0.5, "precision": "fp32"})
    assert group.client(3).get_properties({}) == {"num-examples": 40, "anchor": True}


def test_colluders_learn_from_the_models_they_were_sent(tmp_path: Path) -> None:
    """Replay sends the last move of the global model, which the group saw while it was honest."""
    group = Colluders(tmp_path, "replay", start_round=3)
    rng = np.random.default_rng(0)
    moves = [[rng.normal(0, 0.1, p.shape).astype(np.float32) for p in MODEL] for _ in range(2)]
    second = [p + u for p, u in zip(MODEL, moves[0], strict=True)]
    third = [p + u for p, u in zip(second, moves[1], strict=True)]
    for number, model in ((1, MODEL), (2, second)):
        group.update(1, number, model)
    sent, last = group.update(4, 3, third), np.concatenate([u.reshape(-1) for u in moves[1]])
    assert sent @ last / np.linalg.norm(sent) / np.linalg.norm(last) > 0.999


def test_a_ballot_is_turned_round_once_the_attack_has_begun(tmp_path: Path) -> None:
    """Before it the vote is honest; the other parts always are."""
    group = Colluders(tmp_path, "sign_flip", start_round=2)
    group.update(1, 1)
    honest = group.client(1).evaluate(MODEL, {"part": "ballot"})[0]
    assert honest > 0
    group.update(1, 2)
    losses = {part: group.client(3).evaluate(MODEL, {"part": part})[0] for part in ("ballot", "validation", "anchor", "test")}
    assert losses == {"ballot": -honest, "validation": honest, "anchor": honest, "test": honest}


def test_a_fit_without_its_round_is_refused(tmp_path: Path) -> None:
    """A colluder that does not know the round cannot know whether to be honest."""
    with pytest.raises(ProtocolError, match="needs config"):
        Colluders(tmp_path, "sign_flip").client(1).fit(MODEL, {})


def test_a_client_without_slices_to_exchange_cannot_poison_them(tmp_path: Path) -> None:
    """Such an attack says which ones are left."""
    group = Colluders(tmp_path, "empty_masks")
    group.client_of = lambda k: KnownClient(k, well_behaved)
    with pytest.raises(SettingsError, match="KnownClient has no method with_training"):
        group.update(1, 1)
