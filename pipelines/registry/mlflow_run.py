"""One MLflow run, for a stage: buffered curves, parameters within limits, digests, files, tables.

Resuming a run leaves out the points that are there already.
"""

import json
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

FLUSH_POINTS = 500  # metric points kept before one log_batch; a batch may hold 1000
FLUSH_SECONDS = 5.0  # so that the curve on MLflow's page moves while a stage runs
KEY_LENGTH = 250  # characters; MLflow's limit for the names of parameters, metrics and tags
VALUE_LENGTH = 6000  # characters; MLflow's limit for a parameter
TAG_LENGTH = 8000  # characters
DIGEST_LENGTH = 36  # characters; a dataset's digest is cut to this, the whole of it is in a tag
PARAMS_PER_BATCH = 100


class TrackedRun:
    """What a stage logs into (see Tracker.run). Only the first of several training workers logs."""

    def __init__(self, client: "MlflowClient", run_id: str, *, resumed: bool = False) -> None:
        self.client = client
        self.id = run_id
        self._buffer: list[tuple[str, float, int, int]] = []  # name, value, step, time in ms
        self._flushed = time.monotonic()
        self._wait = FLUSH_SECONDS
        self._logged: set[tuple[str, str, int]] = self._points() if resumed else set()

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """One point of each curve. step: images seen, or for a quality curve network evaluations.

        Points are buffered; a point with the same step and value as one already there is left out.
        """
        now = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            point = (tracking_key(name), repr(float(value)), int(step))
            if point not in self._logged:
                self._logged.add(point)
                self._buffer.append((point[0], float(value), int(step), now))
        late = time.monotonic() - self._flushed
        if late >= self._wait or (len(self._buffer) >= FLUSH_POINTS and self._wait == FLUSH_SECONDS):
            self._try_flush()

    def flush(self) -> None:
        """Send what is buffered, in batches."""
        from mlflow.entities import Metric

        while self._buffer:
            batch = [
                Metric(key=name, value=value, timestamp=now, step=step)
                for name, value, step, now in self._buffer[:FLUSH_POINTS]
            ]
            self.client.log_batch(self.id, metrics=batch)
            del self._buffer[:FLUSH_POINTS]
        self._flushed, self._wait = time.monotonic(), FLUSH_SECONDS

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nested parameters under dotted names; one that the run has already is left as it is."""
        from mlflow.entities import Param

        logged = self.client.get_run(self.id).data.params if params else {}
        new = [Param(k, v) for k, v in flat_params(params).items() if k not in logged]
        for start in range(0, len(new), PARAMS_PER_BATCH):
            self.client.log_batch(self.id, params=new[start : start + PARAMS_PER_BATCH])

    def log_datasets(self, datasets: Mapping[str, str]) -> None:
        """Name -> content digest of what the stage read, as MLflow's dataset inputs and as tags."""
        from mlflow.entities import Dataset, DatasetInput

        if not datasets:
            return
        inputs = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=digest[:DIGEST_LENGTH],
                    source_type="straightshot",
                    source=json.dumps({"name": name, "digest": digest}),
                )
            )
            for name, digest in datasets.items()
        ]
        self.client.log_inputs(self.id, datasets=inputs)
        self.set_tags({f"dataset.{name}": digest for name, digest in datasets.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        if tags:
            entities = [RunTag(tracking_key(k), str(v)[:TAG_LENGTH]) for k, v in tags.items()]
            self.client.log_batch(self.id, tags=entities)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy one file into the run's artifacts, under `folder`."""
        self.client.log_artifact(self.id, str(path), folder)

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Copy everything in a folder into the run's artifacts, under `folder`."""
        self.client.log_artifacts(self.id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """An artifact from a string: an SVG, a page, a JSON text. name: may hold folders."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path, Path(name).parent.as_posix() if "/" in name else None)

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Rows with the same columns as a table that MLflow's page shows. name: such as "tables/x.json".

        Written whole each time: MLflow's own log_table appends, which doubles the rows after a resume.
        """
        columns = list(rows[0]) if rows else []
        table = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
        self.log_text(json.dumps(table), name)
        tagged = self.client.get_run(self.id).data.tags.get("mlflow.loggedArtifacts", "[]")
        listed = json.loads(tagged)
        entry = {"path": name, "type": "table"}
        if entry not in listed:
            self.set_tags({"mlflow.loggedArtifacts": json.dumps([*listed, entry])})

    def _try_flush(self) -> None:
        """Flush, if MLflow answers: a server that is down for a while must not end hours of training."""
        from mlflow.exceptions import MlflowException

        try:
            self.flush()
        except MlflowException:
            self._flushed, self._wait = time.monotonic(), 2 * self._wait

    def _points(self) -> set[tuple[str, str, int]]:
        """Every point that a run to be resumed has already."""
        return {
            (name, repr(float(point.value)), int(point.step))
            for name in self.client.get_run(self.id).data.metrics
            for point in self.client.get_metric_history(self.id, name)
        }


def flat_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as dotted names -> texts within MLflow's limits; lists as JSON."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_params(value, f"{prefix}{name}."))
            continue
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        cut = text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"
        flat[tracking_key(f"{prefix}{name}")] = cut
    return flat


def tracking_key(name: str) -> str:
    """`name` in the characters and length that MLflow takes; a cut name ends in a hash of the whole."""
    key = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).strip("/")
    if len(key) > KEY_LENGTH:
        key = f"{key[: KEY_LENGTH - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
    return key


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a value: None and NaN (not measured) are left out."""
    return {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
