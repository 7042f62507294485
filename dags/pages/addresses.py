"""Addresses of and on Dagster's and MLflow's pages.

Metadata keeps them for ever, while the ports of the pages change: so a link on Dagster's page to what lies
beside it has neither host nor port. Dagster's page answers it (links.py), and knows where MLflow's is today.
"""

import os
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from pipelines.registry.mlflow_store import STAGE_TAG, URI_VARIABLE

REPORT_PATH = "/straightshot/report"
MLFLOW_PATH = "/straightshot/mlflow"
NOT_TRAINING = ("evaluate", "promote")  # MLflow's filters know no "or"


def dag_page(address: str, token: str) -> str:
    """Dagster's page with the graph of the whole DAG. token: for the guard before it."""
    return f"{address}/asset-groups?{urlencode({'token': token})}"


def training_runs(address: str, experiment: str, token: str) -> str:
    """MLflow's page with the runs that train a model. token: for the guard before it."""
    training = " and ".join(f"tags.`{STAGE_TAG}` != '{stage}'" for stage in NOT_TRAINING)
    view = urlencode({"workflowType": "machine_learning", "searchFilter": training}, quote_via=quote)
    return f"{address}/?{urlencode({'token': token})}#/experiments/{experiment}/runs?{view}"


def mlflow_link(place: str) -> str:
    """A place on MLflow's page (runs/ID, models/NAME/versions/NUMBER): of the server in MLFLOW_TRACKING_URI,
    else a path on Dagster's page.
    """
    server = server_page(os.environ.get(URI_VARIABLE, ""))
    return f"{server}/#/{quote(place)}" if server else f"{MLFLOW_PATH}/{quote(place)}"


def server_page(uri: str) -> str | None:
    """The page of an MLflow server, without the password in its address; None where it is a database's."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
