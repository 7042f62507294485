"""Whether each image of an evaluation is right, prompt by prompt: what comparing two models in pairs needs.

promote reads them from evaluate's sample tables and logs them beside the registered model, so that a later
candidate is compared with the champion on the same prompts and the same noise.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.results import STUDENT

if TYPE_CHECKING:
    from components.evaluation.bootstrap import Interval
    from pipelines.registry.mlflow_store import Tracker

VERDICTS_FILE = "verdicts.json"  # an artifact of promote's MLflow run
DEFAULT, AS_IS = "default", "as_is"  # prompts upsampled, as `generate` does; prompts as they are
MODES = (DEFAULT, AS_IS)
RIGHT, WRONG = "1", "0"
SEED = 0  # of the bootstrap's resamples: the same two models give the same interval
COLUMNS = ("index", "form", "mode", "model", "steps", "correct")  # of a sample table


@dataclass(frozen=True)
class Verdicts:
    """Of one model at one number of steps: mode -> form -> whether each prompt's image is right, in order.

    prompts: the protocol's digest of the prompts and of how they are scored. Only verdicts of the same
    digest belong to the same prompts.
    """

    prompts: str
    by_mode: Mapping[str, Mapping[str, tuple[bool, ...]]]

    def to_json(self) -> str:
        """Canonical JSON; a form is a text of one digit per prompt, 1 where the image is right."""
        modes = {
            mode: {form: "".join(RIGHT if right else WRONG for right in row) for form, row in forms.items()}
            for mode, forms in self.by_mode.items()
        }
        return json.dumps({"prompts": self.prompts, **modes}, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> "Verdicts":
        """Read what `to_json` wrote. Raises InputError where it is something else."""
        try:
            document = json.loads(text)
            by_mode = {
                mode: {form: _row(digits) for form, digits in document[mode].items()}
                for mode in MODES
                if mode in document
            }
            return Verdicts(str(document["prompts"]), by_mode)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{VERDICTS_FILE}: not a model's verdicts ({error})") from error


def read_verdicts(tables: Iterable[Path], steps: int, prompts: str) -> Verdicts | None:
    """The student's verdicts at `steps`, from the sample tables that evaluate wrote.

    prompts: the evaluation's digest of its prompts. None where nothing was scored.
    """
    import pyarrow.parquet as pq

    rows: list[Mapping[str, Any]] = []
    for path in tables:
        table = pq.ParquetFile(path)
        if set(COLUMNS) <= set(table.schema_arrow.names):
            rows += table.read(columns=list(COLUMNS)).to_pylist()
    rows = [row for row in rows if (row["model"], row["steps"]) == (STUDENT, steps)]
    rows = [row for row in rows if row["correct"] is not None and row["form"] is not None]
    by_mode: dict[str, dict[str, list[bool]]] = {}
    for row in sorted(rows, key=lambda row: row["index"]):
        by_mode.setdefault(row["mode"], {}).setdefault(row["form"], []).append(row["correct"])
    fixed = {mode: {form: tuple(row) for form, row in forms.items()} for mode, forms in by_mode.items()}
    return Verdicts(prompts, fixed) if fixed else None


def logged_verdicts(tracker: "Tracker", run_id: str) -> Verdicts | None:
    """The verdicts that were logged into an MLflow run; None where they are gone or cannot be read."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with tracker.as_default():
            text = mlflow.artifacts.load_text(f"runs:/{run_id}/{VERDICTS_FILE}")
        return Verdicts.from_json(text)
    except (MlflowException, OSError, InputError):
        return None


def differences(candidate: Verdicts | None, champion: Verdicts | None) -> dict[str, "Interval"]:
    """By mode, the 95% interval of (candidate - champion) of the share of prompts drawn right.

    Resampled in pairs, within each form. A mode is absent where the two were not asked the same prompts.
    """
    from components.evaluation.bootstrap import paired_bootstrap

    if candidate is None or champion is None or not candidate.prompts:
        return {}
    if candidate.prompts != champion.prompts:
        return {}
    found = {}
    for mode in MODES:
        ours, theirs = candidate.by_mode.get(mode, {}), champion.by_mode.get(mode, {})
        if not ours or {form: len(row) for form, row in ours.items()} != {
            form: len(row) for form, row in theirs.items()
        }:
            continue
        strata = [form for form, row in ours.items() for _ in row]
        found[mode] = paired_bootstrap(_flat(ours, ours), _flat(theirs, ours), strata, SEED)
    return found


def _row(digits: str) -> tuple[bool, ...]:
    if set(digits) - {RIGHT, WRONG}:
        raise ValueError(f"a verdict is {RIGHT} or {WRONG}, and there is {sorted(set(digits))}")
    return tuple(digit == RIGHT for digit in digits)


def _flat(forms: Mapping[str, Sequence[bool]], order: Iterable[str]) -> list[bool]:
    return [right for form in order for right in forms[form]]
