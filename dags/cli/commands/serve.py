"""`straightshot serve`: a model behind HTTP, with a page to try it."""

from typing import Annotated

import typer

from dags.cli.options import Credentials, Home, Provenance

commands = typer.Typer()


@commands.command()
def serve(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="champion, challenger, previous, a models:/ URI, or a model's folder; an alias is followed.",
        ),
    ] = "champion",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the first free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="STRAIGHTSHOT_SERVE_TOKEN", show_envvar=True, help="What clients send as a Bearer token."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without a token.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name that clients call this server by.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up.")] = 60.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that are generated together.")] = 32,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request.")] = 64,
    max_evaluations: Annotated[int, typer.Option(min=1, help="Images × steps of one request.")] = 1024,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that wait; more are answered 503.")] = 256,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="Between two looks at the registry for a new champion.")
    ] = 5.0,
    provenance: Provenance = True,
    credentials: Credentials = None,
    home: Home = None,
) -> None:
    """Serve a model over HTTP, in the form of OpenAI's images API, until Ctrl-C."""
    from components.provenance.png import png_writer
    from pipelines.serving.server import run_server
    from pipelines.serving.settings import Limits, ServerConfig
    from pipelines.store.home import home_path

    limits = Limits(
        seconds=timeout, images=max_images, evaluations=max_evaluations, waiting_requests=max_waiting
    )
    config = ServerConfig(
        host=host,
        port=port,
        token=token or None,
        hosts=tuple(allow_host or ()),
        insecure=insecure,
        poll_seconds=poll_seconds,
        batch_images=batch_size,
        limits=limits,
    )
    run_server(model, home_path(home), config, png_writer(provenance, credentials), typer.echo)
