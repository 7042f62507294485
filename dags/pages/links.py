"""What Dagster's page answers beside Dagster's own: the report, and the way to MLflow's page."""

import os
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dags.pages.addresses import MLFLOW_PATH, REPORT_PATH
from pipelines.report import PAGE
from pipelines.store.home import home_path

MLFLOW_VARIABLE = "STRAIGHTSHOT_MLFLOW_PAGE"  # where it is today, from `straightshot ui`
ISOLATED = "sandbox allow-scripts allow-popups"  # what a caption smuggles into the report cannot use the page


async def _report(request: Request) -> Response:
    path = home_path(None) / PAGE
    if not path.exists():
        return PlainTextResponse("no report yet: `straightshot report` writes it\n", status_code=404)
    return FileResponse(path, headers={"Content-Security-Policy": ISOLATED, "Cache-Control": "no-store"})


async def _mlflow(request: Request) -> Response:
    page = os.environ.get(MLFLOW_VARIABLE)
    if not page:
        return PlainTextResponse("MLflow's page is not served beside this one\n", status_code=404)
    return RedirectResponse(f"{page}/#/{quote(request.path_params['place'])}")


ROUTES = (Route(REPORT_PATH, _report), Route(f"{MLFLOW_PATH}/{{place:path}}", _mlflow))
