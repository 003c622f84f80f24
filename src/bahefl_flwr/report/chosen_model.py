"""The model that a simulation chose on the test parts of its sites, measured again from the run folder and the settings.

For phantoms everything comes back from the settings; a folder of real slices must still be where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from bahefl_flwr.lesion.metrics import Evaluation
from bahefl_flwr.report.outcome import ChosenModel, Sample
from bahefl_flwr.trained import Trained


def measure(trained: Trained) -> ChosenModel:
    """Evaluate the model at every site's test part and choose the slices that are shown.

    Raises:
      DataError: the slices cannot be read or split any more. UpdateError: the model is another application's.
    """
    from bahefl_flwr.lesion.prediction import judged, probabilities, ready
    from bahefl_flwr.lesion.sites import site_data

    settings = trained.run.settings
    network, engine = trained.network(), ready(settings.train)
    count = settings.federation.sites
    parts = [site_data(settings.data, site=k, sites=count, seed=settings.run.seed)["test"] for k in range(count)]
    each = [list(judged(network, part, engine)) for part in parts]
    chosen = []
    for why, site, at in _choose(each):
        image, truth = parts[site].images[at], parts[site].masks[at] > 0
        main, *sides = (head[0] for head in probabilities(network, image[None], engine))
        chosen.append(Sample(why=why, image=image, truth=truth, heads=(*reversed(sides), main)))
    return ChosenModel(sites={k: sum(e, Evaluation()) for k, e in enumerate(each)}, samples=chosen)


def _choose(each: Sequence[Sequence[Evaluation]]) -> list[tuple[str, int, int]]:
    """Why, site and index of the slices to show: by rule, so that nobody can pick the pretty ones."""
    found = [(e, site, at) for site, slices in enumerate(each) for at, e in enumerate(slices)]
    positive = sorted((f for f in found if f[0].positive_slices), key=lambda f: f[0].dice_sum)
    empty = [f for f in found if not f[0].positive_slices]
    chosen = []
    if positive:
        by_size = sorted(positive, key=lambda f: f[0].pixels.tp + f[0].pixels.fn)
        chosen = [
            ("median Dice", positive[len(positive) // 2]),
            ("largest lesion", by_size[-1]),
            ("smallest lesion", by_size[0]),
        ]
    if empty:
        chosen.append(("most false alarm", max(empty, key=lambda f: f[0].pixels.fp)))
    return [(why, site, at) for why, (_, site, at) in chosen]
