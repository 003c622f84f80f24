"""Who attacks, and that nobody does outside a simulation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from flwr.app import Context, RecordDict

from bahefl_flwr import app
from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.client import AttackingClient, attacking
from bahefl_flwr.attack.roster import announced, attackers, attacking_members, warnings
from bahefl_flwr.client import LesionClient
from bahefl_flwr.composition import conf_folder
from bahefl_flwr.errors import SettingsError
from bahefl_flwr.identity import Identity
from bahefl_flwr.run_folder import create
from bahefl_flwr.setting_groups import AttackName
from bahefl_flwr.settings import Settings, compose, validate

NODE = {"partition-id": 0, "num-partitions": 10}


@pytest.fixture(scope="module")
def ten_sites() -> Settings:
    """Ten sites, of which three turn their updates round."""
    return compose(["federation.sites=10", "attack=sign_flip"])


def told(settings: Settings, **attack: Any) -> Settings:
    """The same settings with another attack."""
    return settings.model_copy(update={"attack": settings.attack.model_copy(update=attack)})


def test_conf_settings_and_code_know_the_same_attacks() -> None:
    """A file of conf/attack/ for every name, and an implementation for every name but none."""
    names = set(get_args(AttackName))
    assert {path.stem for path in (conf_folder() / "attack").glob("*.yaml")} == names
    assert set(ATTACKS) == names - {"none"}


@pytest.mark.parametrize("name", get_args(AttackName))
def test_a_file_of_conf_changes_the_name_only(name: str) -> None:
    """Fraction and first round come from attack=none, or from the command line."""
    text = (conf_folder() / "attack" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert f"name: {name}\n" in text
    assert name == "none" or text.split("\n\n")[0].endswith("defaults:\n  - none\n  - _self_")


def test_an_attack_is_chosen_by_name_fraction_and_first_round() -> None:
    """Overrides win over the chosen file."""
    attack = compose(["attack=alie_noise", "attack.fraction=0.5", "attack.start_round=3"]).attack
    assert (attack.name, attack.fraction, attack.start_round) == ("alie_noise", 0.5, 3)


@pytest.mark.parametrize("override", ["attack=mask_invertion", "attack.name=mask_invertion"])
def test_an_unknown_attack_is_refused_with_the_list(override: str) -> None:
    """As a choice of conf/ and as a value alike."""
    with pytest.raises(SettingsError, match="mask_invertion") as refused:
        compose([override])
    assert all(name in str(refused.value) for name in get_args(AttackName))


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.04, 0), (0.3, 3), (0.5, 5), (0.96, 9), (1.0, 10)])
def test_a_fraction_is_rounded_to_sites_but_never_to_all_of_them(ten_sites: Settings, fraction: float, count: int) -> None:
    """All sites attack at a fraction of 1 only."""
    assert len(attackers(told(ten_sites, fraction=fraction))) == count


@pytest.mark.parametrize(
    ("fraction", "sites", "count"),
    [(0.5, 3, 1), (0.5, 5, 2), (0.5, 7, 3), (0.5, 10, 5), (0.3, 3, 1), (0.3, 5, 1), (0.1, 3, 0), (0.7, 5, 3), (0.6, 5, 3)],
)
def test_half_is_never_a_majority(ten_sites: Settings, fraction: float, sites: int, count: int) -> None:
    """To the nearest whole number, and halves down."""
    federation = ten_sites.federation.model_copy(update={"sites": sites})
    settings = told(ten_sites.model_copy(update={"federation": federation}), fraction=fraction)
    assert len(attackers(settings)) == count
    assert announced(settings) == f"attackers: {count} of {sites}"


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (["attack=sign_flip", "attack.fraction=0.1"], "nobody attacks"),
        (["attack=sign_flip", "attack.start_round=7"], "after the last of 2 rounds"),
        (["attack.fraction=0.5"], "attack.fraction=0.5 does nothing without an attack"),
        (["attack=none", "attack.fraction=0.5"], ""),
        (["attack=sign_flip", "attack.fraction=0"], ""),
        (["attack=sign_flip"], ""),
        ([], ""),
    ],
)
def test_an_attack_that_cannot_happen_is_warned_of(overrides: list[str], warning: str) -> None:
    """Three sites, two rounds. No attackers on purpose, or an attack left out on purpose, is no reason to warn."""
    told_so = warnings(compose(["experiment=smoke", *overrides]), overrides)
    assert len(told_so) == (1 if warning else 0)
    assert warning in "".join(told_so)


def test_who_attacks_follows_from_the_seed(ten_sites: Settings) -> None:
    """The same sites in every process; others under another seed; more of them are the same and further ones."""
    reseeded = ten_sites.model_copy(update={"run": ten_sites.run.model_copy(update={"seed": 2})})
    assert attackers(ten_sites) == attackers(told(ten_sites, name="zero"))
    assert attackers(ten_sites) != attackers(reseeded)
    assert set(attackers(ten_sites)) < set(attackers(told(ten_sites, fraction=0.5)))


def test_nobody_attacks_without_an_attack(ten_sites: Settings) -> None:
    """Whatever the fraction."""
    assert attackers(told(ten_sites, name="none", fraction=1)) == ()


def test_attackers_are_found_among_the_members_by_their_addresses(ten_sites: Settings, tmp_path: Path) -> None:
    """The ledger's order of registration is another than that of the partitions; who never registered has no index."""
    sites = attackers(ten_sites)
    addresses = [Identity.create_or_load(tmp_path / "sites" / f"{k:03d}" / "identity").address for k in sites]
    members: list[Any] = [SimpleNamespace(index=7, address=addresses[0]), SimpleNamespace(index=3, address=addresses[2])]
    members.append(SimpleNamespace(index=0, address="0x" + "11" * 20))
    assert attacking_members(ten_sites, tmp_path, members) == (3, 7)


def test_the_application_makes_attackers_of_the_drawn_sites_alone(tmp_path: Path) -> None:
    """The others get the honest client, and so does everybody in a run without an attack."""
    small = [
        "experiment=smoke", "federation.sites=4", "data.image_size_px=32", "model.depth=3", "model.width=4", "data.slices=80",
        "train.device=cpu", f"data.cache={tmp_path}", f"run.root={tmp_path}",
    ]  # fmt: skip
    create(tmp_path, "smoke", 1, "")

    def kinds(*overrides: str) -> dict[int, type]:
        settings = compose([*small, *overrides])
        nodes: list[dict[str, Any]] = [{"partition-id": k, "num-partitions": 4} for k in range(4)]
        run_config = dict(settings.flat())
        contexts = [Context(run_id=1, node_id=1, node_config=n, state=RecordDict(), run_config=run_config) for n in nodes]
        return {k: type(app._client_fn(context)) for k, context in enumerate(contexts)}

    half = kinds("attack=mask_inversion", "attack.fraction=0.5")
    hostile = attackers(compose([*small, "attack=mask_inversion", "attack.fraction=0.5"]))
    assert {k for k, kind in half.items() if kind is AttackingClient} == set(hostile)
    assert {kind for k, kind in half.items() if k not in hostile} == {LesionClient}
    assert set(kinds().values()) == {LesionClient}


# --- What is not a simulation ---------------------------------------------------------------------------------------


def test_a_run_on_a_chain_of_its_own_takes_no_attack() -> None:
    """First barrier: such settings do not exist."""
    with pytest.raises(SettingsError, match="for simulations on the embedded ledger only: add attack=none"):
        compose(["ledger=rpc", "ledger.url=http://127.0.0.1:8545", "attack=zero"])


@pytest.mark.parametrize(
    ("node_config", "reason"),
    [
        ({}, "has no partition-id"),
        ({"partition-id": 0}, "has no partition-id"),
        ({"num-partitions": 10}, "has no partition-id"),
        ({**NODE, "data.root": "/data/ct"}, r"has data\.root of its own"),
        ({**NODE, "ledger-url": "http://127.0.0.1:8545"}, "has ledger-url of its own"),
        ({**NODE, "site-home": "/var/lib/bahefl"}, "has site-home of its own"),
        ({**NODE, "num-partitions": 9}, "9 nodes, but federation.sites=10"),
    ],
)
def test_a_node_that_is_no_simulated_one_refuses(ten_sites: Settings, node_config: dict[str, Any], reason: str) -> None:
    """Second barrier, also at nodes that the draw makes honest: no client is built, neither directly nor by the application."""
    context = Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config=dict(ten_sites.flat()))

    def build(context: Context) -> Any:
        raise AssertionError("built a client")

    with pytest.raises(SettingsError, match=reason):
        attacking(build)(context)
    with pytest.raises(SettingsError, match=reason):
        app._client_fn(context)


def test_the_settings_of_a_run_are_checked_as_a_whole() -> None:
    """A run-config that names an attack and another ledger is refused as well."""
    tree = compose(["attack=zero"]).model_dump()
    ledger = {**tree["ledger"], "kind": "rpc", "url": "http://127.0.0.1:8545", "administrator": "/keys"}
    with pytest.raises(SettingsError, match="embedded ledger only"):
        validate({**tree, "ledger": ledger})
