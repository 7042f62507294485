"""What libraries read from the environment; set before Ray starts, and never later.

glibc's getenv may read a list of names that setenv, adding one, has just freed. Ray's threads call it at any
time, so a name that is added while they run can end the process (seen once, in a driver that waited for its
training). A name that is there already is replaced in place.
"""

import os
from collections.abc import Mapping

SETTINGS = {  # unless the user set them
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait in a busy loop cost a loaded machine ten times the work
    "GRPC_VERBOSITY": "ERROR",  # otherwise a line on a head that ends while it is asked something
    "TOKENIZERS_PARALLELISM": "false",  # as open_clip sets it when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # its C++ side's words on each retry, which are printed all the same
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side writes past log_to_driver
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # it is how soon an end or a death is seen
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more; what it would save, our checkpoints do
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "MLFLOW_TRACKING_URI": "",  # as good as unset; MLflow replaces it for a while (Tracker.as_default)
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # of its own 7 the last ones wait for minutes
}


def set_defaults(settings: Mapping[str, str] = SETTINGS) -> None:
    """Give each variable that the user did not set its value."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)
