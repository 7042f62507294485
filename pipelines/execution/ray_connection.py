"""Which Ray a run works on, and how it is started or joined.

An address is "local" (a Ray of this process, on this machine), "auto" (a Ray that runs on this machine) or
HOST:PORT (a cluster, at the port of `ray start --head`). Ray Client's `ray://` has no Ray Data, so it is
refused. The workers of a cluster get this project's code with the connection; the libraries that it needs
must be installed there.

Ray's ports are open on every interface, whatever address it is given, and whoever reaches them can run code:
its token is the protection. So a Ray that asks for none is refused, unless the run's `insecure` is set.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import one_line
from pipelines.environment import set_defaults
from pipelines.errors import ConfigError, StageFailed

ADDRESS_VARIABLE = "RAY_ADDRESS"
CONNECT_SECONDS = 5.0
NO_PROGRESS_SECONDS = 600  # a pool that stands still for so long is an error, not a wait
OBJECT_STORE_BYTES = 256 * 2**20  # fragments travel by name, so the store holds receipts only
MOST_DETAIL = 300  # characters of Ray's own message in one of ours
CLUSTER_ENVIRONMENT = {  # unless the user set them
    # Attempts to join a cluster whose port answers: Ray's twenty take 20 s where the token is wrong, and
    # minutes where something else than Ray listens.
    "RAY_gcs_server_port_wait_time_s": "1",
    # Until a lost head ends this process: a stage that does not need Ray comes to its end; see head_node.py.
    "RAY_gcs_rpc_server_reconnect_timeout_s": str(7 * 24 * 3600),
}
AUTH_MODE = {"RAY_AUTH_MODE": "token"}  # by itself Ray sends no token to an address that it is given
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a small question to a head node
NO_PROXY = [("grpc.enable_http_proxy", 0)]
NOT_SENT = ["__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache"]


def ray_address(configured: str, *, explicit: bool) -> str:
    """The Ray to use: `configured` if the user named it for this run, else RAY_ADDRESS if set, else it."""
    return configured if explicit else os.environ.get(ADDRESS_VARIABLE) or configured


def address_fault(address: str) -> str | None:
    """What is wrong with the form of an address; None if nothing is."""
    scheme, separator, _ = address.partition("://")
    if separator:  # ray:// is Ray Client's, http:// the job API's
        return f"{scheme}:// has no Ray Data; use HOST:PORT, such as head-node:6379"
    if address not in ("local", "auto") and ":" not in address:
        return "no address of a Ray; use local, auto or HOST:PORT"
    return None


def connect(address: str, *, insecure: bool = False) -> None:
    """Start Ray in this process, or join the one at `address`.

    insecure: also one that anybody who reaches it can use. Raises ConfigError where there is none, or it
    refuses us, or it is such a one; StageFailed where it does not start.
    """
    if (fault := address_fault(address)) is not None:
        raise ConfigError(f"--ray or {ADDRESS_VARIABLE} '{address}': {fault}")
    set_defaults()
    if address != "local":
        set_defaults(CLUSTER_ENVIRONMENT)
    if ":" in address:
        _check_reachable(address)
        if not _is_open(address):
            set_defaults(AUTH_MODE)
        elif not insecure:
            raise _open_to_all(address)
    import ray

    if not ray.is_initialized():
        with _nothing_on_stderr():
            _start() if address == "local" else _join(address)
        if not insecure and _is_open(ray.get_runtime_context().gcs_address):
            ray.shutdown()
            raise _open_to_all(address)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its log file has them


def _start() -> None:
    """A Ray of this process, with at least two CPUs: one may be held by a worker while another task reads."""
    import ray

    try:
        ray.init(
            "local",
            num_cpus=max(2, os.cpu_count() or 2),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **_quiet(),
        )
    except (
        ray.exceptions.RayError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a folder, memory, its token
        raise ConfigError(f"Ray does not start on this machine: {one_line(error, MOST_DETAIL)}") from error
    except Exception as error:
        if type(error) is not Exception:  # what Ray raises when its node is not up in 30 s has no other type
            raise
        raise StageFailed(
            f"Ray did not start ({one_line(error, MOST_DETAIL)}); if this machine is busy, run the same"
            " command again"
        ) from error


def _join(address: str) -> None:
    import ray

    import components
    import pipelines

    code = {"py_modules": [components, pipelines], "excludes": NOT_SENT}
    try:
        ray.init(address, runtime_env=code, **_quiet())
    except ray.exceptions.AuthenticationError as error:
        raise _refused(address) from error
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:  # another version, perhaps
        if _refuses_token(address):
            raise _refused(address) from error
        raise ConfigError(
            f"no Ray at '{address}' ({one_line(error, MOST_DETAIL)}); start one, or use --ray local"
        ) from error


def _quiet() -> dict[str, Any]:
    return {"logging_level": logging.ERROR, "log_to_driver": False}


def _check_reachable(address: str) -> None:
    """Ray itself would try a dead address for ten minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray at '{address}' ({error}); start one, or use --ray local") from error


def _is_open(address: str) -> bool:
    """Whether the head node answers a call that shows no token. What does not answer at all is not open."""
    import grpc

    with grpc.insecure_channel(address, options=NO_PROXY) as channel:
        try:
            channel.unary_unary(ALIVE)(b"", timeout=CONNECT_SECONDS)
        except grpc.RpcError:
            return False
    return True


def _open_to_all(address: str) -> ConfigError:
    return ConfigError(
        f"the Ray at '{address}' asks for no token, so whoever reaches its ports can run code on it: start it"
        " with RAY_AUTH_MODE=token and a token, or use it all the same with --insecure"
    )


def _refuses_token(address: str) -> bool:
    """Whether that is why the connection failed: `ray.init` keeps the reason as text only.

    Only after `ray.init` has found the token's file: without one, this client ends the process.
    """
    if ":" not in address:
        return False
    # Not public, but what `ray health-check` and Ray's autoscaler use.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, without a stub
    from ray.exceptions import AuthenticationError, RayError

    try:
        GcsClient(address=address)
    except RayError as error:
        return isinstance(error, AuthenticationError)
    return False


def _refused(address: str) -> ConfigError:
    return ConfigError(
        f"the Ray at '{address}' refuses this token, or the lack of one: set RAY_AUTH_MODE=token, and"
        " RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
    )


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Ray's C++ side greets on file descriptor 2, past Python's sys.stderr, whatever its log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
