"""NVIDIA FLARE's own HE filters on one update: what a client and the server do in a round. Runs in an environment of its own.

    python benchmarks/he_nvflare.py client FOLDER --tensors 64 --output figures.json

The default context of its HEBuilder. No part of this package is imported here.
"""

from __future__ import annotations

import argparse
import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
from measuring import Figures, cpu_seconds, peak_mb, repeated, report
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import HEInTimeAccumulateWeightedAggregator
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder

_STEPS = 10


def provision(folder: Path) -> None:
    """The contexts that `nvflare provision` hands out: the server's without, every client's with the one secret key."""
    builder = HEBuilder()
    builder.initialize(None, None)
    (folder / "server_context.tenseal").write_bytes(builder.get_serialized_context())
    (folder / "client_context.tenseal").write_bytes(builder.get_serialized_context(is_client=True))


def context(site: int = 0) -> FLContext:
    """What FLARE's runtime would hand to a filter or an aggregator in round 0."""
    peer, ctx = FLContext(), FLContext()
    peer.set_prop(ReservedKey.IDENTITY_NAME, f"site-{site}", private=False)
    ctx.set_prop(FLContextKey.SECURE_MODE, value=False)
    ctx.set_prop(AppConstants.CURRENT_ROUND, 0)
    ctx.set_peer_context(peer)
    return ctx


def update(parameters: int, tensors: int) -> dict[str, np.ndarray]:
    """An update in that many tensors of about equal size."""
    values = np.random.default_rng(1).normal(0, 0.05, parameters).astype(np.float32)
    return {f"layer{i}": part for i, part in enumerate(np.array_split(values, tensors))}


def client(folder: Path, parameters: int, tensors: int) -> Figures:
    """Encrypt and serialize an update as a client does; the bytes stay in `folder` for the server."""
    figures: Figures = {}
    encryptor, ctx = HEModelEncryptor(), context()
    encryptor.handle_event(EventType.START_RUN, ctx)
    dxo = DXO(DataKind.WEIGHT_DIFF, update(parameters, tensors), {MetaKey.NUM_STEPS_CURRENT_ROUND: _STEPS})
    with cpu_seconds(figures, "encrypt_s"):
        encrypted = encryptor.process_dxo(dxo, Shareable(), ctx)
        data = fobs.dumps(encrypted.to_shareable())
    (folder / f"update-{tensors}").write_bytes(data)
    return figures | {"upload_bytes": float(len(data))}


def server(folder: Path, parameters: int, tensors: int, sites: int) -> Figures:
    """Load, accept, aggregate, add to the model, and serialize the result, as a server does."""
    figures: Figures = {}
    aggregator = HEInTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHT_DIFF)
    generator, ctx = HEModelShareableGenerator(), context()
    aggregator.handle_event(EventType.START_RUN, ctx)
    generator.handle_event(EventType.START_RUN, ctx)
    model = ModelLearnable({ModelLearnableKey.WEIGHTS: update(parameters, tensors), ModelLearnableKey.META: {}})
    ctx.set_prop(AppConstants.GLOBAL_MODEL, model)
    for site in range(sites):
        data = (folder / f"update-{tensors}").read_bytes()
        with cpu_seconds(figures, "aggregate_s"):
            shareable = fobs.loads(data)
            shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{site}"})
            shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 0)
            accepted = aggregator.accept(shareable, context(site))
        if not accepted:
            raise RuntimeError(f"FLARE's aggregator did not accept update {site}")
    with cpu_seconds(figures, "aggregate_s"):
        learnable = generator.shareable_to_learnable(aggregator.aggregate(ctx), ctx)
        data = fobs.dumps(generator.learnable_to_shareable(learnable, ctx))
    (folder / f"sum-{tensors}").write_bytes(data)
    return figures | {"download_bytes": float(len(data))}


def opening(folder: Path, tensors: int) -> Figures:
    """Load and decrypt the aggregate, as every client does."""
    figures: Figures = {}
    decryptor, ctx = HEModelDecryptor(), context()
    decryptor.handle_event(EventType.START_RUN, ctx)
    data = (folder / f"sum-{tensors}").read_bytes()
    with cpu_seconds(figures, "open_s"):
        decryptor.process_dxo(from_shareable(fobs.loads(data)), Shareable(), ctx)
    return figures


def main() -> None:
    """One role, measured in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["client", "server", "open"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--tensors", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    o = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if not (o.folder / "client_context.tenseal").exists():
        provision(o.folder)
    SecurityContentService.initialize(str(o.folder))
    roles = {
        "client": lambda: client(o.folder, o.parameters, o.tensors),
        "server": lambda: server(o.folder, o.parameters, o.tensors, o.sites),
        "open": lambda: opening(o.folder, o.tensors),
    }
    figures = repeated(roles[o.role], o.repeats)
    versions = {"nvflare": version("nvflare"), "tenseal": version("tenseal")}
    report({**figures, "peak_mb": peak_mb(), **versions}, o.output)


if __name__ == "__main__":
    main()
