"""A server's life: from its options to Ctrl-C."""

import socket
from collections.abc import Callable
from pathlib import Path

from components.provenance.png import PngWriter
from pipelines.errors import ConfigError
from pipelines.serving.settings import ServerConfig

BACKLOG = 1024  # connections that may wait to be accepted
STOP_SECONDS = 30  # for the requests that are being answered when it is told to end


def run_server(
    model: str, home: Path, config: ServerConfig, writer: PngWriter, show: Callable[[str], object]
) -> None:
    """Load the model, listen, and answer until Ctrl-C or SIGTERM; what was begun is finished first.

    Raises ConfigError for an address that is taken or open to the network, or a model that there is not.
    """
    config.check()
    listener = _listen(config)
    import uvicorn

    from pipelines.serving.app import ImageServer
    from pipelines.serving.served_models import ModelSource

    show(f"loading {model} …")
    server = ImageServer(ModelSource(model, home, config.batch_images), config, writer)
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    show(f"serving {server.current.loaded.label} at http://{address}:{port}; Ctrl-C ends it")
    settings = uvicorn.Config(
        server.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    uvicorn.Server(settings).run(sockets=[listener])


def _listen(config: ServerConfig) -> socket.socket:
    """A socket on the address, before the model is loaded: a port that is taken is known at once."""
    try:
        family, *_, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"--host {config.host} --port {config.port}: {error.strerror}; choose another, or --port 0"
        ) from error
    return listener
