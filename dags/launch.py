"""Runs stages through Dagster in this process, with the history under HOME."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError  # public nowhere

from components.errors import one_line
from dags.assets import snapshots
from dags.definitions import defs
from dags.failures import Failure
from dags.instance import FOLDER, open_instance
from dags.jobs import everything
from pipelines.errors import StageFailed
from pipelines.graph import SOURCES, stage_named

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}  # the command shows its own progress


def launch(home: Path, stages: Sequence[str], snapshot: str, settings: dict[str, Any]) -> None:
    """Materialise the stages in order; raises what the first failing stage raised.

    settings: the fields of StraightshotRun, kept with the run in the history.
    """
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    os.environ["DAGSTER_HOME"] = str(home / FOLDER)
    needed = {name for stage in stages for name in stage_named(stage).inputs}
    keys = [name for name in SOURCES if name in needed] + list(stages)
    with open_instance(home) as instance:
        instance.add_dynamic_partitions(snapshots.name or "", [snapshot])
        try:
            defs.resolve_job_def(everything.name).execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name) for name in keys],
                partition_key=snapshot,
                run_config={"resources": {"straightshot": {"config": settings}}, "loggers": QUIET},
                tags={"straightshot/started_by": "command"},
            )
        except Failure as failure:
            raise failure.error from failure.error.__cause__
        except dg.DagsterError as error:
            raise StageFailed(one_line(error)) from error
        except DagsterExecutionInterruptedError as error:  # Ctrl-C between two stages
            raise KeyboardInterrupt from error
