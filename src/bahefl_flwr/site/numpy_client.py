"""Every call of somebody's NumPyClient, and the check of what it answers: a mistake there is told in the words of its author.

Nothing of rounds, ledger or encryption lives here. Messages begin with `source`: the site, the round and the method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.client import Client, NumPyClient

from bahefl_flwr.errors import BaheflError, SettingsError, TrainingError, UpdateError
from bahefl_flwr.site.model import Array, Model, checked

ClientConfig = dict[str, bool | bytes | float | int | str]
ClientFactory = Callable[[], NumPyClient]
ClientFn = Callable[[Context], Client | NumPyClient]

_EXAMPLES = "num-examples"
# MetricRecord's whole numbers travel as 64 bits.
_LARGEST_INT = 2**63 - 1


def make_client(client_fn: ClientFn, context: Context) -> NumPyClient:
    """The NumPyClient of this node.

    Raises:
      TrainingError: `client_fn` raised. SettingsError: it gave something else.
    """
    with _named_failure("client_fn"):
        client = client_fn(context)
    client = getattr(client, "numpy_client", client)  # .to_client() wraps it in an object of this attribute
    if not isinstance(client, NumPyClient):
        raise SettingsError(f"client_fn returned {type(client).__name__}; secure_client_app needs a flwr.client.NumPyClient")
    return client


def initial_model(client: NumPyClient) -> Model:
    """The NumPyClient's own starting point, as round 0.

    Raises:
      TrainingError: `get_parameters` raised. UpdateError: what it gave is no model; says what to give.
    """
    with _named_failure("get_parameters"):
        arrays = client.get_parameters({})
    return checked(arrays, getattr(client, "parameter_names", ()), 0)


def declared_examples(client: NumPyClient) -> int | None:
    """What `get_properties` names as `num-examples`; None if it names none.

    Raises:
      TrainingError: `get_properties` raised, or gave no dict. UpdateError: the number is none.
    """
    properties = _properties(client)
    return count(properties[_EXAMPLES], f'get_properties["{_EXAMPLES}"]', least=1) if _EXAMPLES in properties else None


def has_anchor(client: NumPyClient) -> bool:
    """Whether its `evaluate` says that `part="anchor"` is the same public data at every site.

    Raises:
      TrainingError: `get_properties` raised, or gave no dict.
    """
    return bool(_properties(client).get("anchor"))


def fitted(client: NumPyClient, base: Model, config: ClientConfig, who: str) -> tuple[Array, int, dict[str, float | int]]:
    """Train: the update, shape (parameters,), the number of examples, and the metrics that are numbers.

    Raises:
      TrainingError: `fit` raised, or returned no triple. UpdateError: its arrays or its number of examples are unfit.
    """
    source = f"{who}: fit"
    with _named_failure(source):
        answer = client.fit(base.for_client(), config)
    trained, examples, metrics = _triple(answer, source, "(arrays, number of examples, metrics)")
    number = count(examples, f"{source}'s number of examples", least=1)
    return base.update_towards(trained, source), number, numbers(metrics)


def evaluated(client: NumPyClient, model: Model, config: ClientConfig, who: str) -> tuple[float, int, dict[str, float | int]]:
    """Evaluate: the loss, the number of examples (0: it does not evaluate), and the metrics that are numbers.

    Raises:
      TrainingError: `evaluate` raised, or returned something else.
    """
    source = f"{who}: evaluate"
    with _named_failure(source):
        answer = client.evaluate(model.for_client(), config)
    loss, examples, metrics = _triple(answer, source, "(loss, number of examples, metrics)")
    if isinstance(loss, bool) or not isinstance(loss, int | float | np.integer | np.floating):
        raise TrainingError(f"{source} returned a loss that is a {type(loss).__name__}; return a float")
    try:
        return float(loss), count(examples, f"{source}'s number of examples", least=0), numbers(metrics)
    except UpdateError as error:
        raise TrainingError(str(error)) from None


def count(value: object, source: str, *, least: int) -> int:
    """A whole number of examples.

    Raises:
      UpdateError: it is of another type, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise UpdateError(f"{source} is {value!r}, a {type(value).__name__}; it must be an int, of at least {least}")
    if value < least:
        raise UpdateError(f"{source} is {value}; it must be at least {least}, and a site without data cannot take part")
    return int(value)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float | int]:
    """The entries of a NumPyClient's metrics that Flower's MetricRecord can carry; booleans become 0 and 1.

    What is no number, or not a finite one, is left out: a NaN loss must not cost the site its round.
    """
    found: dict[str, float | int] = {}
    for key, value in metrics.items():
        if isinstance(value, bool | np.bool_ | np.integer | int):
            number: float | int = int(value)
        elif isinstance(value, float | np.floating):
            number = float(value)
        else:
            continue
        if isinstance(key, str) and (abs(number) <= _LARGEST_INT if isinstance(number, int) else np.isfinite(number)):
            found[key] = number
    return found


def _properties(client: NumPyClient) -> Mapping[str, Any]:
    with _named_failure("get_properties"):
        properties: object = client.get_properties({})
    if not isinstance(properties, dict):
        raise TrainingError(f"get_properties returned a {type(properties).__name__}; return a dict")
    return properties


def _triple(answer: object, source: str, wanted: str) -> tuple[object, object, Mapping[str, Any]]:
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
        raise TrainingError(f"{source} returned {got}; return {wanted}")
    first, second, metrics = answer
    if not isinstance(metrics, dict):
        raise TrainingError(f"{source} returned metrics that are a {type(metrics).__name__}; return a dict, empty if need be")
    return first, second, metrics


@contextmanager
def _named_failure(source: str) -> Iterator[None]:
    """Whatever somebody's code raises becomes a TrainingError that names it; our own errors pass."""
    try:
        yield
    except BaheflError:
        raise
    except Exception as error:
        raise TrainingError(f"{source} raised {type(error).__name__}: {error}") from error
