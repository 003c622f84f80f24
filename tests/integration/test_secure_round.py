"""Whole secure runs: the opened model against plain arithmetic, and what is left of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.he.params import decoding_error_std
from bahefl_flwr.records import RoundPhase, members_in
from bahefl_flwr.site.model import BEST_FILE, MODEL_FILE, load_model
from bahefl_flwr.site.state import task_params
from federation_run import SHAPES, Run, distance, examples, federated_run, known_update
from in_process_grid import Deliver, Tamper

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four sites, majority threshold, two rounds, nobody misbehaves."""
    return federated_run(tmp_path_factory.mktemp("run"))


def plain_mean(run: Run, number: int) -> NDArray[np.float64]:
    """The weighted average of the clipped updates, in float64, without any encryption. Weights as the ledger has them."""
    site_of = {run.address(site): site for site in range(4)}
    sites = [site_of[member.address] for member in run.members]
    weights = np.array([examples(site) for site in sites], np.float64) * list(run.rounds[number].weights)
    flat = [np.concatenate([u.reshape(-1) for u in known_update(site, number)]).astype(np.float64) for site in sites]
    return np.average(np.clip(flat, -0.25, 0.25), axis=0, weights=weights)


def test_opened_aggregate_is_the_plain_weighted_average(run: Run) -> None:
    """After two rounds every site's model is the start plus the plain weighted averages, to what the noise budget allows."""
    start = np.concatenate([np.full(shape, 0.5, np.float32).reshape(-1) for shape in SHAPES])
    expected = start + plain_mean(run, 1) + plain_mean(run, 2)
    for site in range(4):
        model = load_model(run.site_folder(site) / MODEL_FILE)
        assert np.abs(model.vector() - expected).max() < 6 * decoding_error_std(task_params(run.settings))


def test_all_sites_end_with_the_same_bits(run: Run) -> None:
    """Every site holds the same final model, bit for bit, and the summary's digest names it."""
    digests = {load_model(run.site_folder(site) / MODEL_FILE).digest().hex() for site in range(4)}
    assert digests == {run.final_model}


def test_the_model_of_the_best_round_is_tested_and_kept(run: Run) -> None:
    """Round 2 scores no better than round 1: every site keeps round 1's model, which the ledger names, and tests that one."""
    kept = [load_model(run.site_folder(site) / BEST_FILE) for site in range(4)]
    assert run.strategy
    assert run.strategy.best_round == 1
    assert {model.digest() for model in kept} == {run.rounds[1].opened}
    assert run.strategy.chosen_model == run.rounds[1].opened.hex()
    assert run.strategy.test_metrics["loss"] == pytest.approx(distance(list(kept[0].arrays)))


def test_every_round_is_finalised_on_the_ledger(run: Run) -> None:
    """Both rounds are finalised with all four updates, all attesting, and a quorum of a majority of the committee."""
    assert [run.rounds[n].phase for n in (1, 2)] == [RoundPhase.FINALIZED] * 2
    assert all(run.rounds[n].included == 0b1111 and run.rounds[n].voted_ok == 0b1111 for n in (1, 2))
    assert all(len(members_in(run.rounds[n].open_quorum)) == 3 for n in (1, 2))


def test_messages_carry_no_bulk(run: Run) -> None:
    """The largest message of the run is a fraction of one ciphertext (98 kB): digests and figures, no arrays."""
    assert run.grid
    assert 0 < run.grid.largest_message_bytes < 4000


def test_driver_keeps_no_model(run: Run) -> None:
    """The driver's folder holds its account and nothing else: no model, no key share, no ciphertext."""
    assert [p.name for p in (run.folder / "driver").iterdir()] == ["identity.key"]


def test_no_stored_object_holds_a_plain_update(run: Run) -> None:
    """No object in the store contains the float32 bytes of an update or of the final model."""
    model = load_model(run.site_folder(0) / MODEL_FILE)
    needles = [known_update(site, 1)[0].tobytes()[:64] for site in range(4)] + [model.arrays[0].tobytes()[:64]]
    blobs = [p.read_bytes() for p in (run.folder / "store").rglob("*") if p.is_file()]
    assert blobs
    assert not any(needle in blob for blob in blobs for needle in needles)


def test_metrics_lines_are_complete(run: Run) -> None:
    """One line a round: coordinator, committed, included, evaluation of that round's model, seconds, bytes, gas."""
    assert [line["round"] for line in run.lines] == [1, 2]
    for line in run.lines:
        assert line["coordinator"]["address"].startswith("0x")
        assert line["committed"] == line["included"] == [0, 1, 2, 3]
        assert line["validation"]["model-round"] == line["round"]
        assert {"train", "encrypt", "upload", "aggregate", "verify", "total"} <= set(line["seconds"])
        assert all(line["bytes"][name] > 0 for name in ("update", "aggregate", "share"))
        assert line["gas"]["total"] > 100_000


def test_sites_ask_the_node_they_name_themselves(tmp_path: Path) -> None:
    """A site with a `ledger-url` in its node-config reads the chain there, whatever the run folder says."""

    def misled(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            where = run.folder / "ledger.json"
            told = json.loads(where.read_text())
            assert run.grid
            for context in run.grid._sites.values():
                context.node_config.setdefault("ledger-url", told["url"])
            if told["url"] != NOWHERE:
                atomic_write(where, json.dumps({**told, "url": NOWHERE}).encode())
            return deliver(message)

        return tamper

    run = federated_run(tmp_path, "federation.rounds=1", tamper=misled)
    assert run.rounds[1].included == 0b1111


def test_coordinators_rotate(tmp_path: Path) -> None:
    """Over ten rounds the contract elects at least three different coordinators."""
    run = federated_run(tmp_path, "federation.rounds=10")
    assert len({r.coordinator for r in run.rounds.values() if r.phase is RoundPhase.FINALIZED}) >= 3


def test_single_key_experiment_runs_the_same_protocol(tmp_path: Path) -> None:
    """With he.threshold=1, the paper's experiment, one member opens and the result is the same average."""
    run = federated_run(tmp_path, "he.threshold=1", "federation.rounds=1")
    start = np.concatenate([np.full(shape, 0.5, np.float32).reshape(-1) for shape in SHAPES])
    model = load_model(run.site_folder(0) / MODEL_FILE)
    assert np.abs(model.vector() - start - plain_mean(run, 1)).max() < 6 * decoding_error_std(task_params(run.settings))
    assert len(members_in(run.rounds[1].open_quorum)) == 1


def test_paper_steps_stand_in_the_code() -> None:
    """Each of the paper's steps 1 to 11 is named where the code does it."""
    source = "\n".join(p.read_text() for p in Path("src/bahefl_flwr").rglob("*.py"))
    named: set[int] = set()
    for first, last in re.findall(r"[Ss]teps? (\d+)(?:(?:-| and | to )(\d+))?", source):
        named.update(range(int(first), int(last or first) + 1))
    assert named >= set(range(1, 12))
