"""That nothing adds a variable to the environment while Ray's threads run; see pipelines/environment.py."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.environment import SETTINGS, set_defaults

# Once, when it is imported: that it is seen shows that others would be.
TORCHS_OWN = "TORCHINDUCTOR_CACHE_DIR"
# A training in this process, one in two workers, and MLflow's own functions. What was there may be replaced.
TRAININGS = """
import os, sys
from pathlib import Path
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.mlflow_store import Tracker
from tests.pipelines.execution.test_training_workers import BATCH, run_train

folder, added, with_ray = Path(sys.argv[1]), [], False

def watch(event, arguments):
    if with_ray and event == "os.putenv" and (name := os.fsdecode(arguments[0])) not in os.environ:
        added.append(name)

sys.addaudithook(watch)
with Engine() as engine:
    engine.start()
    with_ray = True
    tracker = Tracker(folder)
    for workers in (1, 2):
        home = folder / str(workers)
        run_train(home, engine, tracker.uri, Progress(quiet=True), workers=workers, images=2 * BATCH)
    for _ in range(2):
        with tracker.as_default():
            pass
    with_ray = False
print(*added)
"""


def test_no_variable_is_added_beside_rays_threads(tmp_path):
    set_later = {*SETTINGS, TORCHS_OWN}
    unset = {name: value for name, value in os.environ.items() if name not in set_later}
    command = [sys.executable, "-c", TRAININGS, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=unset, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [TORCHS_OWN], done.stdout + done.stderr[-3000:]


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.delenv("RAY_TRAIN_METRICS_ENABLED", raising=False)
    set_defaults()
    assert (os.environ["GRPC_VERBOSITY"], os.environ["RAY_TRAIN_METRICS_ENABLED"]) == ("DEBUG", "0")
