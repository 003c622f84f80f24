"""The model of the best round so far, kept until a better one comes: what is tested at the end, and handed on.

Which round is best only the driver can say: scores are pooled over the sites. It can name a round; the models are those that
this site opened itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from bahefl_flwr.errors import StoreError
from bahefl_flwr.site.model import BEST_FILE, Model, load_model, save_model
from bahefl_flwr.site.state import Site

BEST_ROUND = "best-round"
"""Entry of a message's config: the finalised round with the best validation score; absent or 0 while there is none."""


def best_round(config: Mapping[str, object]) -> int:
    """What the driver calls the best round so far; 0 if nothing of use."""
    value = config.get(BEST_ROUND, 0)
    return value if isinstance(value, int) else 0


def keep_if_best(site: Site, model: Model, best: int) -> None:
    """Keep `model` if it is the one after round `best`; called on every model before a newer one takes its place."""
    path = site.folder / BEST_FILE
    if model.round == best > 0 and not (path.exists() and load_model(path).round == best):
        save_model(model, path)


def chosen_model(site: Site, newest: Model, best: int) -> Model:
    """The model after round `best`; the newest one while no round is best.

    Raises:
      StoreError: this site has not kept it, because it did not take part when the round was called the best.
    """
    if best in (0, newest.round):
        return newest
    path = site.folder / BEST_FILE
    if path.exists() and (model := load_model(path)).round == best:
        return model
    raise StoreError(f"this site has not kept the model of round {best}, the best one; it holds that of round {newest.round}")
