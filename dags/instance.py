"""The embedded Dagster: its history as SQLite under HOME/dagster.

The settings are written here, so that the command and the page agree; a deployment has its own, in
infra/dagster/.
"""

from pathlib import Path

import dagster as dg

from components.durable import write_text

FOLDER = "dagster"
PAGE_SETTINGS = "dagster.yaml"  # what the page and its daemon read
COMMAND_SETTINGS = "command.yaml"  # the command's: the same store, but a step's output stays on the terminal

COMMON = """\
telemetry:
  enabled: false
nux:
  enabled: false  # the page opens without its newsletter dialog
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
run_launcher:
  module: dags.run_launcher
  class: MonitoredRunLauncher
run_monitoring:  # closes the runs of killed processes, which would hold the one slot for ever
  enabled: true
  poll_interval_seconds: 10
concurrency:
  runs:
    max_concurrent_runs: 1  # SQLite's event log locks under parallel runs
"""
NO_CAPTURE = """\
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""


def open_instance(home: Path) -> dg.DagsterInstance:
    """The instance of HOME, for a run in this process."""
    folder = write_settings(home)
    return dg.DagsterInstance.from_config(str(folder), COMMAND_SETTINGS)


def write_settings(home: Path) -> Path:
    """Write the settings under HOME/dagster; returns that folder, which is DAGSTER_HOME."""
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PAGE_SETTINGS, COMMON)
    _write(folder / COMMAND_SETTINGS, COMMON + NO_CAPTURE)
    return folder


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    write_text(path, text)
