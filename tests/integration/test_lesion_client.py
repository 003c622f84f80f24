"""The lesion client as Flower sees it: built from a Context, trained and evaluated over two rounds of plain FedAvg."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from flwr.client import Client
from flwr.common import Context, RecordDict
from flwr.common.typing import Scalar

from bahefl_flwr.client import LesionClient, client_fn
from bahefl_flwr.errors import DataError, ProtocolError, SettingsError
from bahefl_flwr.lesion import partition, phantom
from bahefl_flwr.lesion.metrics import from_metrics
from bahefl_flwr.lesion.sites import ANCHOR_SEED, anchor_slices, site_data
from bahefl_flwr.settings import Settings, compose

SITES = 3
SMALL = [
    "experiment=smoke",
    f"federation.sites={SITES}",
    "data.image_size_px=32",
    "model.depth=3",
    "model.width=4",
    "data.slices=60",
    "train.local_epochs=1",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom slices are drawn once for all tests."""
    return tmp_path_factory.mktemp("phantoms")


def _context(settings: Settings, node_config: dict[str, str | int]) -> Context:
    return Context(run_id=1, node_id=1, node_config=dict(node_config), state=RecordDict(), run_config=dict(settings.flat()))


def _clients(cache: Path, *overrides: str) -> list[LesionClient]:
    settings = compose([*SMALL, f"data.cache={cache}", "train.device=cpu", *overrides])
    return [client_fn(_context(settings, {"partition-id": k, "num-partitions": SITES})) for k in range(SITES)]


def test_all_sites_start_from_the_same_model(cache: Path) -> None:
    """Three nodes that share only the settings compute equal float32 arrays, named in the same order."""
    clients = _clients(cache)

    models = [client.get_parameters({}) for client in clients]

    assert all(np.array_equal(a, b) for model in models[1:] for a, b in zip(models[0], model, strict=True))
    assert {array.dtype for array in models[0]} == {np.dtype(np.float32)}
    assert len(clients[0].parameter_names) == len(models[0])
    assert isinstance(clients[0].to_client(), Client)


def test_sites_share_all_slices_without_overlap(cache: Path) -> None:
    """Each site loads its own share; together they have every phantom once, and masks agree with the flags of the split."""
    data = compose([*SMALL, f"data.cache={cache}"]).data
    flags = phantom.lesion_flags(1, data.slices)

    slices = [part for k in range(SITES) for part in site_data(data, site=k, sites=SITES, seed=1).values()]

    indices = [int(name.rsplit("_", 1)[1]) for part in slices for name in part.names]
    assert sorted(indices) == list(range(data.slices))
    assert np.array_equal(np.concatenate([part.has_lesion for part in slices]), flags[indices])


def test_rounds_of_fedavg_lower_the_validation_loss(cache: Path) -> None:
    """Fit, average by examples, evaluate: what the secured federation does, without the security."""
    clients = _clients(cache, "train.lr=5e-3", "train.local_epochs=2", "train.batch_size=4", "data.difficulty=0.0")
    model = clients[0].get_parameters({})
    before = _loss(clients, model)

    for number in (1, 2):
        results = [client.fit(model, {"server-round": number, "rounds": 2}) for client in clients]
        weights = [examples for _, examples, _ in results]
        model = [
            np.average(arrays, axis=0, weights=weights).astype(np.float32)
            for arrays in zip(*(r[0] for r in results), strict=True)
        ]

    assert _loss(clients, model) < before - 0.02
    assert weights == [client.get_properties({})["num-examples"] for client in clients]
    assert set(results[0][2]) == {"loss", "lr", "steps", "seconds", "cpu-seconds", "resumed-epochs", "precision"}


def _loss(clients: list[LesionClient], model: list[np.ndarray]) -> float:
    answers = [client.evaluate(model, {}) for client in clients]
    return sum(loss * count for loss, count, _ in answers) / sum(count for _, count, _ in answers)


def test_a_repeated_fit_gives_the_same_update(cache: Path) -> None:
    """Flower may deliver a message twice; the second answer has the same bits, even from a client built anew."""
    clients = [_clients(cache)[1] for _ in range(2)]

    answers = [client.fit(client.get_parameters({}), {"server-round": 2, "rounds": 4})[0] for client in clients]

    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))


@pytest.mark.parametrize("part", ["validation", "ballot", "test", "anchor"])
def test_counts_cover_every_pixel_of_the_part(cache: Path, part: str) -> None:
    """TP + FP + FN + TN is the number of pixels of exactly that part."""
    client = _clients(cache)[0]

    _, count, metrics = client.evaluate(client.get_parameters({}), {"part": part})

    pixels = from_metrics(metrics).pixels
    assert count == metrics["num-slices"]
    assert pixels.tp + pixels.fp + pixels.fn + pixels.tn == count * 32 * 32


@pytest.mark.parametrize(
    "config", [{}, {"server-round": 0, "rounds": 2}, {"server-round": 1}, {"server-round": "1", "rounds": 2}]
)
def test_a_fit_without_its_place_in_the_task_is_refused(cache: Path, config: dict[str, Scalar]) -> None:
    """Without round and rounds the schedule would silently start again."""
    client = _clients(cache)[0]

    with pytest.raises(ProtocolError, match="a whole number from 1"):
        client.fit(client.get_parameters({}), config)


def test_an_unknown_part_is_refused(cache: Path) -> None:
    """Nothing is evaluated on the training part by a slip of the pen."""
    client = _clients(cache)[0]

    with pytest.raises(ProtocolError, match="asked for part 'train'"):
        client.evaluate(client.get_parameters({}), {"part": "train"})


def test_a_ballot_is_cast_on_the_validation_part(cache: Path) -> None:
    """A site votes by its own validation slices."""
    client = _clients(cache)[0]
    model = client.get_parameters({})

    assert client.evaluate(model, {"part": "ballot"}) == client.evaluate(model, {"part": "validation"})


def test_the_anchor_set_is_the_same_at_every_site_and_in_every_run(cache: Path) -> None:
    """Loss and counts of one model are equal, whatever the site and the run's seed."""
    clients = [_clients(cache)[0], _clients(cache)[2], _clients(cache, "run.seed=7")[1]]
    model = clients[0].get_parameters({})

    answers = [client.evaluate(model, {"part": "anchor"}) for client in clients]

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][1] == compose(SMALL).screening.anchor_slices


@pytest.mark.parametrize("count", [4, 5, 24])
def test_an_anchor_set_of_any_size_has_both_classes_and_several_scanners(cache: Path, count: int) -> None:
    """Slices with lesion and without, as many as asked for, in the size of the run's own."""
    data = compose([*SMALL, f"data.cache={cache}"]).data

    slices = anchor_slices(data, count=count)

    assert slices.images.shape == slices.masks.shape == (count, 32, 32)
    assert 0 < slices.has_lesion.sum() < count
    assert len({name.split("_")[1] for name in slices.names}) == 4


def test_no_site_trains_on_the_anchor_set(cache: Path) -> None:
    """Its seed is none that a run may have, and none of its pictures is any site's."""
    data = compose([*SMALL, f"data.cache={cache}"]).data
    with pytest.raises(SettingsError, match=r"run\.seed"):
        compose([f"run.seed={ANCHOR_SEED}"])

    own = {
        image.tobytes()
        for k in range(SITES)
        for part in site_data(data, site=k, sites=SITES, seed=1).values()
        for image in part.images
    }

    assert not own & {image.tobytes() for image in anchor_slices(data, count=24).images}


def test_exchanged_training_slices_change_the_training_alone(cache: Path) -> None:
    """Half of the slices are trained on; validation, test and the client itself stay as they were."""
    client = _clients(cache)[0]
    model = client.get_parameters({})

    changed = client.with_training(lambda slices: slices.take(np.arange(len(slices) // 2)))

    assert changed.get_properties({})["num-examples"] == client.get_properties({})["num-examples"] // 2  # type: ignore[operator]
    assert all(
        changed.evaluate(model, {"part": part}) == client.evaluate(model, {"part": part}) for part in ("validation", "test")
    )


def test_a_deployed_site_reads_its_own_folder(tmp_path: Path) -> None:
    """`data.root` in the node config wins over the run config; the whole folder is this site's."""
    rng = np.random.default_rng(0)
    for part in ("frames", "masks"):
        (tmp_path / part).mkdir()
        for k in range(40):
            image = rng.integers(0, 255, (32, 32), np.uint8) if part == "frames" else np.full((32, 32), 255 * (k % 2), np.uint8)
            cv2.imwrite(str(tmp_path / part / f"scan1_{k}.png"), image)

    client = client_fn(_context(compose(SMALL), {"data.root": str(tmp_path)}))

    assert client.get_properties({}) == {"num-examples": 28, "anchor": True}


@pytest.mark.parametrize(
    ("node_config", "reason"),
    [({}, r"this node has no data.*data\.root="), ({"partition-id": 3, "num-partitions": 3}, "partition-id 3 of 3")],
)
def test_a_node_without_data_says_what_to_add(node_config: dict[str, str | int], reason: str) -> None:
    """Neither a folder nor a partition, or a partition that is not there."""
    with pytest.raises(DataError, match=reason):
        client_fn(_context(compose(SMALL), node_config))


REAL = Path("/work/shared/data/ct-slices")


@pytest.mark.skipif(not REAL.is_dir(), reason="real slices are not on this machine")
def test_real_slices_split_by_patient_over_sites() -> None:
    """The seven volumes: no volume in two parts, every site with both classes in training and validation."""
    data = compose(["data=folder", f"data.root={REAL}", "data.split=patient", "data.image_size_px=32"]).data

    sites = [site_data(data, site=k, sites=2, seed=1) for k in range(2)]

    volumes = [{name.rsplit("_", 1)[0] for site in sites for name in site[part].names} for part in partition.PARTS]
    assert sum(len(v) for v in volumes) == len(set.union(*volumes)) == 7
    assert all(0 < site[part].has_lesion.mean() < 1 for site in sites for part in ("train", "validation"))
