"""How many workers a pool has follows from what one of them requests and from what the nodes have."""

import os
import sys
import time
from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.resources import GIB, Resources, workers_that_fit
from pipelines.store.receipts import Counts, PartReceipt

WAIT_SECONDS = 60.0


@pytest.mark.parametrize(
    ("nodes", "resources", "workers"),
    [
        ([{"CPU": 2}], Resources(), 2),
        ([{"CPU": 16}], Resources(), 30),  # one CPU stays free
        ([{"CPU": 2}], Resources(cpus=1), 1),
        ([{"CPU": 1}], Resources(cpus=1), 1),  # the first worker always gets its CPU
        ([{"CPU": 16, "GPU": 1}], Resources(gpus=1), 1),
        ([{"CPU": 16, "GPU": 1}], Resources(gpus=0.25), 4),
        ([{"CPU": 16, "GPU": 1}], Resources(gpus=0.1), 10),
        ([{"CPU": 16, "GPU": 1}] * 2, Resources(gpus=0.6), 2),
        ([{"CPU": 16, "GPU": 1}] * 2, Resources(gpus=2), 0),  # not half on each node
        ([{"CPU": 4, "GPU": 8}], Resources(cpus=1, gpus=1), 3),
        ([{"CPU": 16, "memory": 32 * GIB}], Resources(memory_bytes=10 * GIB), 3),
        ([{"CPU": 4}, {"GPU": 4}], Resources(cpus=1, gpus=1), 0),  # no node has both
        ([{"CPU": 4, "card": 2}], Resources(custom={"card": 0.5}), 4),
        ([{"GPU": 2}], Resources(cpus=0, gpus=1), 2),
        ([], Resources(), 0),
    ],
)
def test_a_pool_has_as_many_workers_as_the_nodes_take(nodes, resources, workers):
    assert workers_that_fit(nodes, resources) == workers


@pytest.mark.parametrize(
    ("amounts", "message"),
    [({"gpus": 1.5}, "1.5 GPUs; above one"), ({"memory_bytes": -1}, "less than nothing")],
)
def test_what_ray_would_not_take_names_the_setting(amounts, message):
    with pytest.raises(ConfigError, match=f"recaption.gpus_per_worker: .*{message}"):
        Resources(**amounts, setting="recaption.gpus_per_worker")


class Meeting:
    """Waits until as many workers as its task names are at work with it; its receipt names its process."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, task) -> PartReceipt:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + WAIT_SECONDS
        while len(list(self.folder.iterdir())) < task["workers"]:
            assert time.monotonic() < deadline, "the others never came"
            time.sleep(0.05)
        name = f"{task['name']}-{os.getpid()}"
        return PartReceipt(name=name, files=(), counts=Counts.model_validate({"in": 1, "kept": 1}))


@pytest.fixture(scope="module")
def one_card():
    """A Ray with many CPUs and a single card, which stands for a GPU."""
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import a test
    settings = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 128 * 2**20}
    ray.init("local", num_cpus=16, resources={"card": 1}, **settings)
    with Engine() as engine:
        yield engine
    ray.shutdown()


@pytest.mark.parametrize(("share", "workers"), [(1.0, 1), (0.5, 2)])
def test_no_more_workers_share_a_card_than_it_has_room_for(one_card, tmp_path, share, workers):
    tasks = [{"name": f"t{i}", "workers": workers} for i in range(6)]
    receipts = one_card.map_parts(
        Meeting,
        tasks,
        setup={"folder": str(tmp_path)},
        on_done=lambda receipt: None,
        resources=Resources(custom={"card": share}),
    )
    assert [receipt.name.partition("-")[0] for receipt in receipts] == [task["name"] for task in tasks]
    assert len(list(tmp_path.iterdir())) == workers


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"custom": {"card": 2}}, "one worker requests 2 card, and the largest node has 1 card"),
        ({"gpus": 1}, "one worker requests 1 GPU, and the largest node has 0 GPU"),
        ({"memory_bytes": 2**60}, "of memory, and the largest node has"),
    ],
)
def test_a_worker_that_can_never_fit_names_the_setting(one_card, tmp_path, amounts, message):
    resources = Resources(**amounts, setting="recaption.gpus_per_worker")
    with pytest.raises(ConfigError, match=f"^recaption.gpus_per_worker: .*{message}"):
        one_card.map_parts(
            Meeting, [{"name": "t"}], setup={"folder": str(tmp_path)}, on_done=print, resources=resources
        )
