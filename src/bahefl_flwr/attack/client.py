"""A site that attacks: its own NumPyClient, whose updates and ballots the colluders replace. Simulations only.

Everything else it reports is what an honest site would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import Context, RecordDict
from flwr.client import Client, NumPyClient
from flwr.common.typing import Scalar
from numpy.typing import NDArray

from bahefl_flwr.attack.catalogue import ATTACKS
from bahefl_flwr.attack.group import Group, Trained, Vector32
from bahefl_flwr.attack.poisoning import Poison
from bahefl_flwr.attack.roster import attackers, refuse_deployed
from bahefl_flwr.errors import ProtocolError, SettingsError
from bahefl_flwr.run_folder import find
from bahefl_flwr.settings import from_run_config

ClientFn = Callable[[Context], Client | NumPyClient]
Arrays = list[NDArray[np.float32]]

_FOLDER = "attack"


@runtime_checkable
class Poisonable(Protocol):
    """A NumPyClient whose training slices can be exchanged, as LesionClient's."""

    def with_training(self, change: Poison) -> NumPyClient:
        """The same client, with its training slices changed."""
        ...


def attacking(client_fn: ClientFn) -> ClientFn:
    """The same `client_fn`, but for the nodes of a simulation that `attack` settings make attackers.

    The returned function raises SettingsError on a node that is not of a simulation (`refuse_deployed`).
    """

    def wrapped(context: Context) -> Client | NumPyClient:
        """This node's own client, or a colluder in its place."""
        settings = from_run_config(context.run_config)
        if settings.attack.name == "none":
            return client_fn(context)
        refuse_deployed(settings, context.node_config)
        site, sites = int(context.node_config["partition-id"]), attackers(settings)
        if site not in sites:
            return client_fn(context)
        group = Group(
            folder=find(settings.run.root, context.run_id).path / _FOLDER,
            sites=sites,
            seed=settings.run.seed,
            attack=ATTACKS[settings.attack.name],
        )
        return AttackingClient(
            group, site=site, start_round=settings.attack.start_round, client_of=lambda k: _client_of(client_fn, context, k)
        )

    return wrapped


def _client_of(client_fn: ClientFn, context: Context, site: int) -> NumPyClient:
    """The honest client of a colluder, as its own node would build it."""
    node_config = {**context.node_config, "partition-id": site}
    client = client_fn(Context(context.run_id, context.node_id, node_config, RecordDict(), context.run_config))
    client = getattr(client, "numpy_client", client)  # .to_client() wraps it in an object of this attribute
    if not isinstance(client, NumPyClient):
        raise SettingsError(f"client_fn returned {type(client).__name__}; an attack needs a flwr.client.NumPyClient")
    return client


class AttackingClient(NumPyClient):
    """One colluder.

    Args:
      site: its partition id. start_round: before this finalised round it is honest.
      client_of: from the partition id of a colluder to its honest client.
    """

    def __init__(self, group: Group, *, site: int, start_round: int, client_of: Callable[[int], NumPyClient]) -> None:
        self._group, self._site, self._start_round, self._client_of = group, site, start_round, client_of
        self._own = client_of(site)
        self.parameter_names = getattr(self._own, "parameter_names", ())

    def get_properties(self, config: dict[str, Scalar]) -> dict[str, Scalar]:
        """The honest client's."""
        return self._own.get_properties(config)

    def get_parameters(self, config: dict[str, Scalar]) -> Arrays:
        """The honest client's."""
        return self._own.get_parameters(config)

    def fit(self, parameters: Arrays, config: dict[str, Scalar]) -> tuple[Arrays, int, dict[str, Scalar]]:
        """Honest before the start; then the model moved by the crafted update, with the figures of honest training.

        Raises:
          ProtocolError: the config names no "server-round". SettingsError: the attack poisons slices, and this client has none
            that can be exchanged.
        """
        number = config.get("server-round")
        if not isinstance(number, int):
            raise ProtocolError(f'an attack needs config["server-round"], a whole number from 1; got {number!r}')
        base = _joined(parameters)
        if number < self._start_round:
            self._group.remember(number, base)
            return self._own.fit(parameters, config)
        made = self._group.crafted(self._site, number, base, lambda k, poisoned: self._train(k, poisoned, parameters, config))
        return _split(base + made.update, parameters), made.examples, made.metrics

    def evaluate(self, parameters: Arrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Honest, but for a ballot once the attack has begun: its loss is negated, so that the worst candidate gets the vote."""
        loss, examples, metrics = self._own.evaluate(parameters, config)
        votes_for_the_worst = config.get("part") == "ballot" and self._group.has_attacked
        return -loss if votes_for_the_worst else loss, examples, metrics

    def _train(self, site: int, poisoned: bool, parameters: Arrays, config: dict[str, Scalar]) -> Trained:
        client = self._own if site == self._site else self._client_of(site)
        if poisoned:
            client = self._poisoned(client)
        trained, examples, metrics = client.fit([a.copy() for a in parameters], dict(config))
        return Trained(update=_joined(trained) - _joined(parameters), examples=int(examples), metrics=metrics)

    def _poisoned(self, client: NumPyClient) -> NumPyClient:
        poison = self._group.attack.poison
        assert poison is not None
        if not isinstance(client, Poisonable):
            raise SettingsError(
                f"this attack poisons training slices, and {type(client).__name__} has no method with_training: "
                "choose an attack on updates, such as sign_flip"
            )
        return client.with_training(poison)


def _joined(arrays: Arrays) -> Vector32:
    return np.concatenate([np.asarray(a, np.float32).reshape(-1) for a in arrays])  # (P,)


def _split(vector: Vector32, like: Arrays) -> Arrays:
    ends = np.cumsum([a.size for a in like])[:-1]
    return [part.reshape(a.shape).astype(a.dtype, copy=False) for part, a in zip(np.split(vector, ends), like, strict=True)]
