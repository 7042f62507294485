"""MLflow's page behind the guard: an app for `mlflow server --app-name straightshot` (see pyproject.toml)."""

from dags.pages.guard import Guard, guarded


def create_app() -> Guard:
    """MLflow's own application, as its server runs it, behind the guard."""
    from mlflow.server.fastapi_app import app

    return guarded(app)
