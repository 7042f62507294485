"""The stages in their order, and how some of them are selected."""

import pytest

from pipelines.errors import ConfigError
from pipelines.graph import select, upstream
from tests.pipelines.line_stages import NAMES

EVERY = [NAMES[0], "fetch", *NAMES[1:]]  # with the stage that lists of URLs have
ORDER = ["annotators", "filter", "recaption", "shard", "train", "distill", "evaluate", "promote"]


def test_the_stages_are_in_the_order_of_the_design():
    assert NAMES == ORDER
    for stage in EVERY:
        assert all(EVERY.index(name) < EVERY.index(stage) for name in upstream(stage))


@pytest.mark.parametrize(
    ("expressions", "names"),
    [
        ([], EVERY),
        (["train"], ["train"]),
        (["train+"], ["train", "distill", "evaluate", "promote"]),
        (["+shard"], ["annotators", "fetch", "filter", "recaption", "shard"]),
        (["promote", "filter"], ["filter", "promote"]),
        (["filter,train"], ["filter", "train"]),
        (["+recaption", "evaluate+"], [*EVERY[:4], "evaluate", "promote"]),
        (["+recaption+"], EVERY),
    ],
)
def test_a_selection_is_a_union_in_pipeline_order(expressions, names):
    assert list(select(expressions)) == names


@pytest.mark.parametrize("expression", ["trian", "trian+", "", "+"])
def test_an_unknown_stage_suggests_the_nearest(expression):
    if not expression:
        assert list(select([expression])) == EVERY
        return
    with pytest.raises(ConfigError, match=r"did you mean 'train'|there are annotators"):
        select([expression])
