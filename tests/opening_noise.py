"""How far an opened mean update can be from the exact one."""

from __future__ import annotations

import math

from bahefl_flwr.he.params import aggregate_noise_std, subset_count
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import RoundRecord
from bahefl_flwr.settings import Settings
from bahefl_flwr.site.opening import total_share
from bahefl_flwr.site.state import task_params


def opening_error(settings: Settings, ledger: FederationLedger, r: RoundRecord) -> float:
    """The farthest that a parameter, as a round opens it, can be from the exact weighted mean of the sites' updates.

    Units of the update. `packing.pack` makes each value a whole number of steps, less than one step away; the coordinator
    multiplies it by the site's weight. In the lowest field, where all of a model of at most 4096 parameters is, the noise of the
    opening adds a Gaussian: eight of its deviations are exceeded with a chance of 1e-15. `packing.unpack` divides by what the
    weights add up to.
    """
    params = task_params(settings)
    noise = math.hypot(2.0**params.flooding_sigma_log2 * math.sqrt(subset_count(params)), aggregate_noise_std(params))
    steps = sum(r.weights) + 8 * noise / 2.0**params.noise_bits
    return steps * params.update_range / (params.field_scale * total_share(ledger, r, r.outcome))
