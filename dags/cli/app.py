"""The `straightshot` command: a thin face over the DAG.

Each command checks what it was given, calls one function of pipelines/ or dags/, and prints what came back.
Exit status: 0 done or nothing to do, 1 a stage failed, 2 bad usage or config, 3 a gate refused. An error is
one line; --debug shows the traceback. Heavy libraries are imported by the commands that need them.
"""

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import StraightshotError
from pipelines.presets import DEFAULT_PRESET

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
SPREAD = ("--select", "--force", "--set")  # options of `run` that take several values: --force train distill

app = typer.Typer(
    name="straightshot",
    help="From web images with poor alt text to a text-to-image model that draws in one step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Home = Annotated[
    Path | None, typer.Option("--home", help="Where runs lie.", show_default="STRAIGHTSHOT_HOME, else ./runs")
]
Model = Annotated[
    str, typer.Option("--model", help="champion, challenger, previous, a models:/ URI, or a model's folder.")
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; --debug is taken anywhere on the line."""


@app.command()
def run(
    preset: Annotated[str, typer.Option(help="micro, demo, gpu, cluster, or a YAML file.")] = DEFAULT_PRESET,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="parquet:PATH | folder:PATH | webdataset:PATH | toy:N.", show_default="the preset's"
        ),
    ] = None,
    snapshot: Annotated[str | None, typer.Option(help="The corpus snapshot's name, e.g. 2026-11-20.")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Stages: STAGE, STAGE+ (and all after it), +STAGE (all it needs)."),
    ] = None,
    force: Annotated[list[str] | None, typer.Option(help="Stages to run again although fresh.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Override the preset.")
    ] = None,
    home: Home = None,
    ray: Annotated[
        str | None, typer.Option(help="local | auto | an address such as ray://host:10001.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and do nothing.")] = False,
) -> None:
    """Run the DAG: what is fresh is kept, the rest is made. The same command again resumes."""
    from dags.cli.run import RunRequest, dry_run_of, run_pipeline

    request = RunRequest(
        preset=preset,
        corpus=corpus,
        snapshot=snapshot,
        select=tuple(select or ()),
        force=tuple(force or ()),
        overrides=tuple(overrides or ()),
        home=home,
        ray=ray,
    )
    if dry_run:
        dry_run_of(request)
    else:
        run_pipeline(request)


@app.command()
def status(
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="A list of objects, one per stage.")] = False,
) -> None:
    """Show each stage: fresh, stale (and why), missing, running or failed; its counts and seconds."""
    from dags.cli.tables import print_status
    from pipelines.status import status_json, status_of
    from pipelines.store.home import home_path

    planned = status_of(home_path(home))
    if json:
        print(status_json(planned))
    else:
        print_status(planned)


@app.command()
def verify(
    target: Annotated[str | None, typer.Argument(metavar="[STAGE|PATH]", show_default="every output")] = None,
    home: Home = None,
) -> None:
    """Hash every file of the outputs and name those that are not as they were made."""
    from dags.cli.verify import verify_outputs

    if not verify_outputs(home, target, print):
        raise typer.Exit(FAILED)


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw.")],
    model: Model = "champion",
    steps: Annotated[
        int | None, typer.Option(help="Network evaluations.", show_default="the model's own")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same pictures.")] = 0,
    number: Annotated[int, typer.Option("-n", min=1, help="Pictures of each prompt.")] = 1,
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder they are written to.")] = Path("out"),
    guidance: Annotated[float | None, typer.Option(help="Of a model that did not absorb it.")] = None,
    upsample: Annotated[
        bool, typer.Option("--upsample/--as-is", help="Say the prompt at length first, or draw it as it is.")
    ] = True,
    home: Home = None,
) -> None:
    """Draw pictures with the promoted one-step model, or with another."""
    from dags.cli.generate import generate as draw
    from pipelines.store.home import home_path

    for path in draw(
        home_path(home),
        prompts,
        out,
        model=model,
        count=number,
        seed=seed,
        steps=steps,
        guidance=guidance,
        upsample=upsample,
    ):
        print(path)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A version or alias.")] = "challenger",
    force: Annotated[bool, typer.Option("--force", help="Also if the gate refuses.")] = False,
    home: Home = None,
) -> None:
    """Make a registered model champion, if the gate says yes."""
    from pipelines.stages.promote import promote as move
    from pipelines.store.home import home_path

    promotion = move(home_path(home), version, force=force)
    was = f"; it was version {promotion.replaced}" if promotion.moved and promotion.replaced else ""
    print(f"champion is version {promotion.version}{was}")


@app.command()
def rollback(home: Home = None) -> None:
    """Make the champion before this one champion again."""
    from pipelines.stages.promote import rollback as rollback_champion
    from pipelines.store.home import home_path

    promotion = rollback_champion(home_path(home))
    print(f"champion is version {promotion.version} again; it was version {promotion.replaced}")


@app.command()
def models(
    home: Home = None,
    history: Annotated[bool, typer.Option("--history", help="Also every promotion and refusal.")] = False,
) -> None:
    """Show the registered models, their aliases and what they scored."""
    from dags.cli.tables import print_history, print_models
    from pipelines.registry.model_registry import models as registered
    from pipelines.stages.promote import history as moves
    from pipelines.store.home import home_path

    print_models(registered(home_path(home)))
    if history:
        print_history(moves(home_path(home)))


@app.command()
def report(
    home: Home = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the run's page, report.html, and say where it lies."""
    from dags.cli.run import write_page
    from pipelines.store.home import open_home

    path = write_page(open_home(home))
    print(path)
    if show:
        typer.launch(path.as_uri())


@app.command()
def ui(
    home: Home = None,
    dagster_port: Annotated[int, typer.Option(help="Dagster's port; 0: the first free one.")] = 0,
    mlflow_port: Annotated[int, typer.Option(help="MLflow's port; 0: the first free one.")] = 0,
) -> None:
    """Serve Dagster's and MLflow's pages on loopback until Ctrl-C."""
    from dags.cli.ui import serve
    from pipelines.store.home import open_home

    serve(open_home(home), dagster_port, mlflow_port, lambda text: print(text, flush=True))


@app.command()
def doctor(home: Home = None) -> None:
    """Show versions, devices, disk, Ray and MLflow: what works here."""
    from dags.cli.doctor import examine
    from pipelines.store.home import home_path

    if not examine(home_path(home)):
        raise typer.Exit(FAILED)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs one command and exits with its status."""
    # Threads that wait for each other in a busy loop cost a loaded machine ten times the work; read by OpenMP
    # when torch is imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if not debug:
        sys.excepthook = _unforeseen
    sys.exit(_main([word for word in given if word != "--debug"], debug))


def _main(arguments: list[str], debug: bool) -> int:
    """The exit status of one command; what a user can set right is said in one line, here and only here."""
    from typer.exceptions import TyperException

    try:
        command = typer.main.get_command(app)  # not app(): that would set an excepthook of its own
        return command.main(_spread(arguments), standalone_mode=False, prog_name="straightshot") or OK
    except (StraightshotError, TyperException, ValueError, OSError, typer.Abort, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        text, exit_status = _told(error)
        print(f"straightshot: {' '.join(text.split())}", file=sys.stderr)
        return exit_status


def _told(error: BaseException) -> tuple[str, int]:
    """What the user is told, and the exit status."""
    from pydantic import ValidationError
    from typer.exceptions import TyperException

    match error:
        case StraightshotError():
            return str(error), error.exit_status
        case TyperException():
            return f"{error.format_message()} See straightshot --help.", USAGE
        case ValidationError():
            first = error.errors()[0]
            return f"{error.title}.{'.'.join(str(name) for name in first['loc'])}: {first['msg']}", USAGE
        case OSError():
            space = (
                "no space left, free some" if error.errno == errno.ENOSPC else error.strerror or str(error)
            )
            return f"{error.filename or 'HOME'}: {space}; the same command goes on from here", FAILED
        case KeyboardInterrupt() | typer.Abort():
            return "interrupted; the same command goes on from here", INTERRUPTED
        case _:
            return str(error) or type(error).__name__, FAILED


def _unforeseen(kind: type[BaseException], error: BaseException, _: object) -> None:
    """A bug of ours is one line, too, that says how to see the rest."""
    text = " ".join(f"{kind.__name__}: {error}".split())
    print(f"straightshot: {text}; run the same command with --debug for the traceback", file=sys.stderr)


def _spread(arguments: list[str]) -> list[str]:
    """`--force train distill` as `--force train --force distill`: `run` has no other words on its line."""
    if "run" not in arguments[:1]:
        return arguments
    spread: list[str] = []
    option = ""
    for word in arguments:
        follows = spread and spread[-1] in SPREAD
        if word.startswith("-"):
            option = word if word in SPREAD else ""
        elif option and not follows:
            spread.append(option)
        spread.append(word)
    return spread


if __name__ == "__main__":
    main()
