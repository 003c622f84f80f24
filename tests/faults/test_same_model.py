"""Between processes: a federation that was killed again and again ends with the model of one that nobody disturbed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from bahefl_flwr.ledger.node import NodeProcess
from bahefl_flwr.records import RoundPhase, RoundRecord, members_of
from bahefl_flwr.run_folder import LEDGER_DATABASE
from bahefl_flwr.settings import from_yaml
from bahefl_flwr.site.model import Array, load_model
from federation_processes import ROOT
from killed_federation import Ended, Occasion, Victim, federation_with_kills, in_round, ledger_of, server_app, whole_site
from opening_noise import opening_error

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROUNDS = 3
PHASES = (RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY)


def known_federation(folder: Path, deeds: Sequence[tuple[Occasion, Victim]]) -> Ended:
    """Three sites whose updates are the same in every run (`apps/known_app.py`)."""
    project = folder / "project"
    project.mkdir()
    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    app["components"] = {"serverapp": "bahefl_flwr.app:server_app", "clientapp": "known_app:client_app"}
    content = {"project": {"name": "known", "version": "1.0.0", "dependencies": []}, "tool": {"flwr": {"app": app}}}
    (project / "pyproject.toml").write_text(tomli_w.dumps(content))
    (project / "known_app.py").write_text((ROOT / "tests" / "apps" / "known_app.py").read_text())
    settings = ("experiment=smoke", f"federation.rounds={ROUNDS}", "he.update_range=0.25", "screening.groups=64")
    return federation_with_kills(folder / "federation", deeds, *settings, project=project)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A federation in which nobody is killed."""
    return known_federation(tmp_path_factory.mktemp("undisturbed"), ())


@pytest.mark.parametrize("victim", [pytest.param(server_app, id="server-app"), pytest.param(whole_site(1), id="site")])
def test_a_killed_federation_has_the_model_of_an_undisturbed_one(tmp_path: Path, undisturbed: Ended, victim: Victim) -> None:
    """Other keys, other noise, the same updates: no parameter is farther off than all openings together allow.

    The bound is below a hundredth of what training moves the model by: a round lost, repeated or mixed up would show.
    """
    killed = known_federation(tmp_path, [(in_round(number, phase), victim) for number, phase in enumerate(PHASES, 1)])
    (one, its_bound), (other, others_bound) = model_and_bound(killed), model_and_bound(undisturbed)
    difference, moved = np.abs(one - other).max(), np.abs(other - 0.5).max()
    # float32 numbers around 1, added in each round of either run.
    bound = its_bound + others_bound + 2 * ROUNDS * float(np.finfo(np.float32).eps)
    print(f"largest difference {difference:.2e}, bound {bound:.2e}, moved {moved:.3f}")
    assert difference < bound < 0.01 * moved


def model_and_bound(ended: Ended) -> tuple[Array, float]:
    """The final model, the same at all sites, and how far it can be from the exact one: nobody was left out of any round."""
    models = ended.models()
    assert len(models) == 3 and len({path.read_bytes() for path in models}) == 1
    settings = from_yaml((ended.run / "config.yaml").read_text())
    with NodeProcess(ended.folder / "ledger" / LEDGER_DATABASE, chain_id=settings.ledger.chain_id) as node:
        ledger = ledger_of(ended.folder, node.url)
        assert ledger
        rounds = [ledger.round(number) for number in range(1, ROUNDS + 1)]
        assert all(whole(r) for r in rounds)
        return load_model(models[0]).vector(), sum(opening_error(settings, ledger, r) for r in rounds)


def whole(r: RoundRecord) -> bool:
    """Every site's update is in it, with the same weight."""
    return members_of(r, r.outcome) == 0b111 and len(set(r.weights)) == 1
