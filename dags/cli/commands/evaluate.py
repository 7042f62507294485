"""`straightshot evaluate`."""

from typing import Annotated

import typer

from dags.cli.options import Home, Model

commands = typer.Typer()


@commands.command()
def evaluate(
    model: Model = "champion",
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="As metrics.json, with what differs.")] = False,
) -> None:
    """Measure a model again, by the config, the judge and the shards of the last run."""
    from dags.cli.evaluation import evaluation_json, print_evaluation
    from pipelines.execution.progress import Progress
    from pipelines.model_evaluation import evaluate_model
    from pipelines.store.home import home_path

    evaluation = evaluate_model(model, home_path(home), Progress())
    if json:
        typer.echo(evaluation_json(evaluation))
    else:
        print_evaluation(evaluation)
