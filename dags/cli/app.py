"""The `straightshot` command: its entry point, its groups of commands and its exit statuses.

Each command checks its options, calls one function of pipelines/ or dags/, and prints the result. Exit
status: 0 done or nothing to do, 1 a stage failed, 2 bad usage or config, 3 a gate refused, 130 Ctrl-C. An
error is one line; --debug shows the traceback. A new command is a function in the module of its group; a
new group is a module of `commands/`, added in `build_app`.

Nothing heavy is imported before a command runs, and what it needs it imports itself.
"""

import sys
from typing import TYPE_CHECKING, Annotated

from pipelines.environment import set_defaults

if TYPE_CHECKING:
    import typer

LIST_OPTIONS = {  # by command: each takes several values, --force train distill
    "run": ("--select", "--force", "--set"),
    "study": ("--set",),
    "deploy": ("--set",),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs one command and exits with its status."""
    set_defaults()  # before any of the libraries is imported
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_exit_status([word for word in words if word != "--debug"], debug="--debug" in words))


def build_app() -> "typer.Typer":
    """Every command, of every group."""
    import typer

    from dags.cli.commands import (
        card,
        edit,
        evaluate,
        export,
        generate,
        model,
        operations,
        page,
        pipeline,
        record,
        retention,
        serve,
        study,
    )

    app = typer.Typer(
        name="straightshot",
        help="From web images with poor alt text to a text-to-image model that generates in one step.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @app.callback()
    def _options(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        """Options of every command; --debug may stand anywhere on the line."""

    groups = (
        *(pipeline, generate, edit, export, evaluate, model, page),
        *(operations, retention, serve, study, record, card),
    )
    for group in groups:
        app.add_typer(group.commands)
    return app


def _exit_status(arguments: list[str], *, debug: bool) -> int:
    """Run one command. Every error ends here, and only here, as one line."""
    try:
        from typer import Exit
        from typer.main import get_command

        command = get_command(build_app())
        try:
            # Not app() or command.main(): they end on Ctrl-C without a message.
            with command.make_context("straightshot", repeat_options(arguments)) as context:
                command.invoke(context)
        except Exit as end:
            return end.exit_code
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the end of every command
        from dags.cli.messages import ending_of
        from pipelines.errors import traceback_of
        from pipelines.execution import watchdog

        if debug:
            print(traceback_of(error), end="", file=sys.stderr)
        ending = ending_of(error)
        print(f"straightshot: {ending.text}", file=sys.stderr)
        watchdog.exit_status = ending.exit_status
        return ending.exit_status


def repeat_options(arguments: list[str]) -> list[str]:
    """`--force train distill` as `--force train --force distill`.

    `run` has no other words on its line; of those of other commands, values have an equals sign.
    """
    command = arguments[0] if arguments else ""
    several = LIST_OPTIONS.get(command, ())
    repeated: list[str] = []
    option = ""
    for word in arguments:
        is_first_value = repeated and repeated[-1] in several
        if word.startswith("-"):
            option = word if word in several else ""
        elif option and not is_first_value and (command == "run" or "=" in word):
            repeated.append(option)
        repeated.append(word)
    return repeated


if __name__ == "__main__":
    main()
