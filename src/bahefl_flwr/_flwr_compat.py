"""The imports of private Flower names for simulations, so that a new Flower release is one file's work.

Beside `_flwr_deployment.py`, which loads no Ray. Pinned to flwr >= 1.41, < 1.44 in pyproject.toml. No protocol logic here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil, floor
from pathlib import Path

import ray
import tomli_w
from flwr.app import Context, RecordDict
from flwr.common.constant import RUN_ID_NUM_BYTES, TASK_ID_NUM_BYTES
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore import telemetry
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.logger import update_console_handler
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from bahefl_flwr.errors import RunFailed
from bahefl_flwr.settings import Scalar

# One thread per worker: sites share the machine's cores, and more threads per site only make them wait for each other.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}
# Messages carry digests and metrics only, never ciphertexts: Ray's default of 30 % of the memory would lie idle.
_OBJECT_STORE_BYTES = 256 * 1024 * 1024


def new_run_id() -> int:
    """A random 64-bit run id as Flower's SuperLink would give; the `context.run_id` of both apps."""
    return generate_rand_int_from_bytes(RUN_ID_NUM_BYTES)


def run_simulation(
    serverapp: str,
    clientapp: str,
    num_supernodes: int,
    run_config: Mapping[str, Scalar],
    *,
    run_id: int,
    use_gpu: bool = True,
    verbose: bool = False,
) -> None:
    """Run a Flower app on Flower's own Ray engine, in this process and its Ray workers; returns when the ServerApp has ended.

    Unlike `flwr run` it needs no SuperLink, no bundle and no installation step; unlike Flower's deprecated function of this name,
    both apps see `run_config`. Nothing leaves the machine: telemetry, Ray usage statistics and the dashboard are off.

    Args:
      serverapp, clientapp: "module:attribute", importable.
      num_supernodes: sites, each with `partition-id` and `num-partitions` in its node-config.
      run_config: complete and flat.
      run_id: from `new_run_id`, so that the caller knows it even when the run fails.
      use_gpu: share the GPUs that Ray finds evenly among the workers.
      verbose: Flower's own log and the workers' output on the terminal.

    Raises:
      RunFailed: Ray did not start. RuntimeError: the engine failed later. Exception: whatever the ServerApp raised.
    """
    _silence_telemetry()
    update_console_handler(level=logging.DEBUG if verbose else logging.CRITICAL)
    workers = min(num_supernodes, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="bahefl-app-") as folder, _local_ray(workers, verbose):
        _write_app(Path(folder), serverapp, clientapp, run_config)
        run = _new_run(run_id)
        _run_simulation(
            num_supernodes=num_supernodes,
            exit_event=telemetry.EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app_attr=clientapp,
            server_app_attr=serverapp,
            app_dir=folder,
            is_app=True,
            run=run,
            server_app_context=Context(run.run_id, 0, {}, RecordDict(), dict(run_config)),
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": gpu_share(_gpus(), workers) if use_gpu else 0.0}},
            verbose_logging=verbose,
        )


def _silence_telemetry() -> None:
    # Flower reads the variable once, at import; the module may have been imported long before.
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's coming default; the present one prints a warning in every worker without a GPU.
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"


@contextmanager
def _local_ray(workers: int, verbose: bool) -> Iterator[None]:
    """Start Ray before Flower does: Flower then uses it as it is, and passing GPUs and worker settings needs no detour."""
    python_path = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    on_terminate = signal.getsignal(signal.SIGTERM)
    with _ray_named():
        ray.init(
            # Never join a cluster that happens to run on this machine.
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.INFO if verbose else logging.ERROR,
            log_to_driver=verbose,
            runtime_env={"env_vars": {**_WORKER_ENVIRONMENT, "PYTHONPATH": python_path}},
        )
    if threading.current_thread() is threading.main_thread():
        # Ray puts a handler of its own in place, which aborts the process.
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _ray_named() -> Iterator[None]:
    """Whatever hinders Ray from starting becomes one message that says so; its own errors speak of sockets and raylets."""
    try:
        yield
    except Exception as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "it does not say why")
        raise RunFailed(
            f"Ray, on which the simulation runs, did not start ({type(error).__name__}: {said}); look for 1 GB of free memory, "
            f"for space in {tempfile.gettempdir()}, and at RAY_TMPDIR, which must be a short path that this user may write; "
            "--verbose shows more"
        ) from error


def gpu_share(gpus: int, workers: int) -> float:
    """Fraction of one GPU per worker such that all workers fit on `gpus`, 0 without any. Ray counts in steps of 0.0001."""
    return floor(10_000 / ceil(workers / gpus)) / 10_000 if gpus else 0.0


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]


def _write_app(folder: Path, serverapp: str, clientapp: str, run_config: Mapping[str, Scalar]) -> None:
    # Flower's simulated nodes read their run-config from a project folder and from nowhere else.
    project = {
        "project": {"name": "bahefl-simulation", "version": "1.0.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "bahefl",
                    "components": {"serverapp": serverapp, "clientapp": clientapp},
                    "config": dict(run_config),
                }
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project), encoding="utf-8")


def _new_run(run_id: int) -> Run:
    run = Run.create_empty(run_id=run_id)
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    # Messages name their sender by this process-wide identity; 1 is Flower's id of the server side.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = run.primary_task_id, run_id, 1
    return run
