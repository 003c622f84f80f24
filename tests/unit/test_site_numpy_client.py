"""What a NumPyClient may answer, and what it is told where it answers something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.client import NumPyClient

from bahefl_flwr.errors import SettingsError, TrainingError, UpdateError
from bahefl_flwr.site.model import Model
from bahefl_flwr.site.numpy_client import declared_examples, evaluated, fitted, has_anchor, initial_model, make_client, numbers

WHO = "site 2, round 3"
START = [np.zeros((2, 3), np.float64), np.array(7, np.int64), np.zeros(0, np.float32), np.zeros((), np.float16)]


class Client(NumPyClient):
    """Answers what it is given, or raises it."""

    parameter_names = ("w", "batches", "nothing", "scale")

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def _answer(self, method: str, default: Any) -> Any:
        answer = self.answers.get(method, default)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_properties(self, config: Any) -> Any:
        return self._answer("get_properties", {})

    def get_parameters(self, config: Any) -> Any:
        return self._answer("get_parameters", START)

    def fit(self, parameters: Any, config: Any) -> Any:
        self.seen = parameters
        return self._answer("fit", (parameters, 5, {}))

    def evaluate(self, parameters: Any, config: Any) -> Any:
        return self._answer("evaluate", (0.5, 5, {}))


def arrays(change: Callable[[list[Any]], Any]) -> Any:
    """The initial arrays, changed."""
    copies = [a.copy() for a in START]
    changed = change(copies)
    return copies if changed is None else changed


def model() -> Model:
    return initial_model(Client())


def test_floating_arrays_of_any_width_are_kept_as_float32() -> None:
    """Also an empty one and one of shape (); their order and names stay."""
    start = model()
    assert [(a.dtype, a.shape) for a in start.arrays] == [(np.float32, (2, 3)), (np.float32, (0,)), (np.float32, ())]
    assert start.names == ("w", "nothing", "scale")


def test_a_counter_comes_back_to_the_client_and_is_never_part_of_the_update() -> None:
    """BatchNorm's num_batches_tracked: fit sees the first value each time, whatever it returned."""
    client = Client(fit=(arrays(lambda a: a.__setitem__(1, np.array(99, np.int64))), np.int64(5), {}))
    update, examples, _ = fitted(client, model(), {}, WHO)
    assert [str(a.dtype) for a in client.seen] == ["float32", "int64", "float32", "float32"]
    assert (client.seen[1], update.size, examples) == (7, 7, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "gave no arrays"),
        (np.zeros(3), "gave a ndarray, not a list"),
        (START[:3], "gave 3 arrays, get_parameters 4"),
        (arrays(lambda a: a.__setitem__(0, np.zeros((3, 2)))), r"changed the shape of w from \(2, 3\) to \(3, 2\)"),
        (
            arrays(lambda a: a.__setitem__(0, np.zeros((2, 3), np.int32))),
            r"array 0 \(w\) has dtype int32 and shape .*leave it out",
        ),
        (arrays(lambda a: a.__setitem__(0, np.zeros((2, 3), object))), r"array 0 \(w\) has dtype object"),
        (arrays(lambda a: a.__setitem__(0, np.zeros((2, 3), complex))), r"array 0 \(w\) has dtype complex128"),
        (arrays(lambda a: a.__setitem__(0, np.full((2, 3), np.nan))), r"array 0 \(w\) holds NaN or infinity"),
        (
            arrays(lambda a: a.__setitem__(0, np.full((2, 3), -1e300))),
            r"array 0 \(w\) holds 1e\+300, beyond the range of float32",
        ),
        (arrays(lambda a: a.__setitem__(0, torch.zeros(2, 3))), r"array 0 \(w\) is a torch.Tensor, .* \.detach\(\)"),
        (arrays(lambda a: a.__setitem__(0, [[0.0] * 3] * 2)), r"array 0 \(w\) is a builtins.list"),
        (arrays(lambda a: a.__setitem__(0, np.ma.masked_array(np.zeros((2, 3))))), r"array 0 \(w\) is a numpy.*MaskedArray"),
        (
            arrays(lambda a: a.__setitem__(3, np.array(1, np.int64))),
            r"whole numbers at positions \[1, 3\], get_parameters at \[1\]",
        ),
        (arrays(lambda a: a.__setitem__(1, np.array(1.0))), r"whole numbers at positions \[\], get_parameters at \[1\]"),
    ],
)
def test_unfit_arrays_of_fit_are_refused(given: Any, message: str) -> None:
    """Each in words that name site, round, array, what was got, and what to do."""
    with pytest.raises(UpdateError, match=f"^{WHO}: fit.*{message}"):
        fitted(Client(fit=(given, 5, {})), model(), {}, WHO)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (0, "is 0; it must be at least 1"),
        (-3, "is -3; it must be at least 1"),
        (True, "is True, a bool; it must be an int"),
        (5.0, "is 5.0, a float; it must be an int"),
        ("5", "is '5', a str; it must be an int"),
        (None, "is None, a NoneType; it must be an int"),
    ],
)
def test_a_number_of_examples_that_is_none_is_refused(examples: Any, message: str) -> None:
    """Of fit, and of get_properties, by which the site is registered."""
    with pytest.raises(UpdateError, match=f"{WHO}: fit's number of examples {message}"):
        fitted(Client(fit=(START, examples, {})), model(), {}, WHO)
    with pytest.raises(UpdateError, match=message):
        declared_examples(Client(get_properties={"num-examples": examples}))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((START, 5), "returned 2 values; return .arrays, number of examples, metrics."),
        (START[:3], "returned metrics that are a ndarray"),
        (None, "returned a NoneType; return"),
        ((START, 5, None), "returned metrics that are a NoneType"),
        (ValueError("no such file: scan-1"), "raised ValueError: no such file: scan-1"),
    ],
)
def test_an_answer_of_fit_that_is_no_triple_is_refused(answer: Any, message: str) -> None:
    """Also where fit raises."""
    with pytest.raises(TrainingError, match=f"^{WHO}: fit {message}"):
        fitted(Client(fit=answer), model(), {}, WHO)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((0.5, 5), "returned 2 values; return .loss, number of examples, metrics."),
        ((torch.tensor(0.5), 5, {}), "a loss that is a Tensor; return a float"),
        ((True, 5, {}), "a loss that is a bool; return a float"),
        ((0.5, -1, {}), "'s number of examples is -1; it must be at least 0"),
        ((0.5, 5.0, {}), "'s number of examples is 5.0, a float"),
        (KeyError("accuracy"), "raised KeyError: 'accuracy'"),
    ],
)
def test_an_answer_of_evaluate_that_is_no_triple_is_refused(answer: Any, message: str) -> None:
    """One kind of error, whatever is wrong: it costs figures, never the round."""
    with pytest.raises(TrainingError, match=f"^{WHO}: evaluate.*{message}"):
        evaluated(Client(evaluate=answer), model(), {}, WHO)


def test_a_client_without_evaluate_evaluates_nothing() -> None:
    """Flower's own default."""
    assert evaluated(NumPyClient.__new__(type("Bare", (NumPyClient,), {})), model(), {}, WHO) == (0.0, 0, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "get_parameters gave no arrays"),
        ([np.array(3)], "hold no floating-point number"),
        ([np.zeros(0)], "hold no floating-point number"),
        ([np.arange(3)], r"get_parameters: array 0 \(parameter_000\) has dtype int64 and shape \(3,\)"),
    ],
)
def test_a_model_without_numbers_is_refused(given: Any, message: str) -> None:
    """When the site first greets, by method and array."""
    with pytest.raises(UpdateError, match=message):
        initial_model(Client(get_parameters=given))


def test_names_that_come_twice_are_numbers_instead() -> None:
    """Two arrays of one name would be one in the model's file."""
    client = Client(get_parameters=[np.zeros(1), np.ones(1)])
    client.parameter_names = ("w", "w")  # type: ignore[assignment]
    assert initial_model(client).names == ("parameter_000", "parameter_001")


def test_an_error_of_the_clients_own_is_named_by_its_method() -> None:
    """client_fn, get_parameters and get_properties, too."""

    def broken(context: Any) -> NumPyClient:
        raise FileNotFoundError("/data/site")

    with pytest.raises(TrainingError, match="client_fn raised FileNotFoundError: /data/site"):
        make_client(broken, None)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="client_fn returned int"):
        make_client(lambda _: 3, None)  # type: ignore[arg-type, return-value]
    with pytest.raises(TrainingError, match="get_parameters raised RuntimeError: no weights"):
        initial_model(Client(get_parameters=RuntimeError("no weights")))
    with pytest.raises(TrainingError, match="get_properties returned a NoneType"):
        declared_examples(Client(get_properties=None))


def test_what_a_client_does_not_say_is_not_assumed() -> None:
    """No number of examples, no public data."""
    assert (declared_examples(Client()), has_anchor(Client())) == (None, False)
    assert has_anchor(Client(get_properties={"anchor": True}))


def test_metrics_that_flower_cannot_carry_are_left_out() -> None:
    """Texts, NaN, numbers beyond 64 bits and keys that are no text; the rest is kept."""
    given = {"a": np.float32(0.5), "b": True, "c": "text", "d": float("nan"), "e": 2**70, "f": np.int8(3), 4: 1.0, "g": 10**400}
    assert numbers(given) == {"a": 0.5, "b": 1, "f": 3}  # type: ignore[arg-type]
