"""What several modules of these tests start from."""

from pathlib import Path

import pytest

from pipelines.stage import Input
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.small_trainings import (
    run_both,
    shards,
)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> str:
    """One MLflow database for the whole module: making one takes longer than these trainings."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tracking) -> tuple[Path, Input, Receipt, Receipt]:
    """HOME of a run that nothing disturbed, the shards, and the two receipts."""
    home = tmp_path_factory.mktemp("whole")
    shard = shards(home / "shards")
    return home, shard, *run_both(home, tracking, shard)
