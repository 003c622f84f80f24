"""Which round's model is the best so far, and when a task ends because none gets better. Scores only: no ledger, no Flower."""

from __future__ import annotations


class EarlyStopping:
    """What scores of finalised rounds have shown so far.

    Args:
      rounds: `federation.patience`: so many evaluated rounds without a better score end the task; 0 never.

    Attributes:
      best_round: with the highest score, the earliest of equal ones; 0 before the first score.
    """

    def __init__(self, rounds: int) -> None:
        self.best_round = 0
        self._rounds = rounds
        self._best_score = float("-inf")
        self._worse_in_a_row = 0

    def note(self, number: int, score: object) -> None:
        """A finalised round whose model was evaluated; anything but a number as its score says nothing about progress."""
        if not isinstance(score, int | float):
            return
        if score > self._best_score:
            self.best_round, self._best_score, self._worse_in_a_row = number, float(score), 0
        else:
            self._worse_in_a_row += 1

    @property
    def why_over(self) -> str:
        """The reason to end the task, for the ledger; "" while it goes on."""
        if not self._rounds or self._worse_in_a_row < self._rounds:
            return ""
        return f"early stopping: no better score than round {self.best_round}'s in {self._rounds} evaluated rounds"
