"""When a task has stopped getting better."""

from __future__ import annotations

from bahefl_flwr.early_stopping import EarlyStopping


def scored(patience: int, *scores: object) -> EarlyStopping:
    """After rounds 1, 2, ... of these scores."""
    stopping = EarlyStopping(patience)
    for number, score in enumerate(scores, 1):
        stopping.note(number, score)
    return stopping


def test_an_equal_score_is_no_better_one() -> None:
    """The earlier round stays the best, and patience is used up."""
    stopping = scored(2, 0.5, 0.5, 0.5)
    assert (stopping.best_round, stopping.why_over) == (1, "early stopping: no better score than round 1's in 2 evaluated rounds")


def test_a_better_score_gives_all_of_the_patience_back() -> None:
    """Only rounds in a row count."""
    stopping = scored(2, 0.5, 0.4, 0.6, 0.5)
    assert (stopping.best_round, stopping.why_over) == (3, "")


def test_without_patience_a_task_goes_on() -> None:
    """0 never ends it, but the best round is known."""
    stopping = scored(0, 0.5, *[0.1] * 50)
    assert (stopping.best_round, stopping.why_over) == (1, "")


def test_what_is_no_number_is_no_score() -> None:
    """A round that nobody evaluated neither is the best nor uses up patience."""
    assert scored(1, None, "good", None).why_over == ""
    assert scored(1, None).best_round == 0
