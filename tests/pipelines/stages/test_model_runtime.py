"""Where a stage's models run is the config's to say, and a GPU that is not there is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.execution.resources import Resources, workers_that_fit
from pipelines.stage import fingerprint
from pipelines.stages import evaluate, recaption
from pipelines.stages import filter as filter_stage
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.filter import FilterConfig
from pipelines.stages.model_runtime import ModelRuntime, load_judge, worker_resources
from tests.small_judge import save_judge


@pytest.fixture
def judge_folder(tmp_path: Path) -> str:
    return f"local-dir:{save_judge(tmp_path)}"


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_without_a_gpu_the_defaults_are_float32_on_the_cpu(no_gpu):
    for runtime in (FilterConfig().judge, RecaptionConfig().judge, RecaptionConfig().captioner):
        resolved = runtime.resolve("x")
        assert (resolved.device, resolved.dtype) == ("cpu", "float32")


def test_on_a_gpu_the_captioner_takes_bfloat16_and_the_judge_stays_exact(gpu):
    captioner = RecaptionConfig().captioner.resolve("recaption.captioner")
    assert (captioner.device, captioner.dtype) == ("cuda", "bfloat16")
    judge = FilterConfig().judge.resolve("filter.judge")
    assert (judge.device, judge.dtype) == ("cuda", "float32")


def test_the_config_decides_against_the_machine(gpu):
    resolved = ModelRuntime(device="cpu", dtype="float16").resolve("x")
    assert (resolved.device, resolved.dtype) == ("cpu", "float16")


def test_a_gpu_that_is_not_there_is_one_line_that_names_the_setting(no_gpu):
    with pytest.raises(ConfigError, match=r"recaption\.captioner\.device is cuda, and") as caught:
        ModelRuntime(device="cuda").resolve("recaption.captioner")
    assert "\n" not in str(caught.value)


def test_each_field_can_be_set_from_the_command():
    settings = [
        "recaption.captioner.dtype=bfloat16",
        "filter.judge.batch_size=7",
        "recaption.judge.device=cpu",
    ]
    config = load_config("micro", settings)
    assert config.recaption.captioner.dtype == "bfloat16"
    assert config.recaption.captioner.batch_size == 128, "what is not set keeps the captioner's own default"
    assert config.filter.judge.batch_size == 7
    assert config.recaption.judge.device == "cpu"


def test_the_judge_runs_as_configured(judge_folder):
    images = [Image.fromarray(np.full((16, 16, 3), 40 * n, np.uint8)) for n in range(5)]
    exact = load_judge(judge_folder, ModelRuntime(device="cpu", batch_size=2), "filter.judge")
    assert exact.batch_size == 2
    assert {p.dtype for p in exact.model.parameters()} == {torch.float32}
    coarse = load_judge(judge_folder, ModelRuntime(device="cpu", dtype="bfloat16"), "filter.judge")
    assert {p.dtype for p in coarse.model.parameters()} == {torch.bfloat16}
    np.testing.assert_allclose(coarse.image_features(images), exact.image_features(images), atol=0.02)


def asked(config: RecaptionConfig, gpus: float) -> Resources:
    models = {"recaption.captioner": config.captioner, "recaption.judge": config.judge}
    return worker_resources(gpus, models)


def test_a_worker_asks_for_the_gpu_share_of_all_its_models():
    config = RecaptionConfig()
    assert asked(config, gpus=8).gpus == 1.0, (
        "captioner and judge share one card, and no worker is beside them"
    )
    assert worker_resources(8, {"filter.judge": FilterConfig().judge}).gpus == 0.25
    larger = RecaptionConfig(captioner=ModelRuntime(gpus_per_worker=2.0))
    assert asked(larger, gpus=8).gpus == 3, "above one, Ray takes whole cards only"


def test_without_a_gpu_a_worker_asks_for_half_a_cpu_as_ever():
    assert asked(RecaptionConfig(), gpus=0) == Resources(
        setting="recaption.captioner.cpus_per_worker and recaption.judge.cpus_per_worker"
    )
    kept_off = RecaptionConfig(captioner=ModelRuntime(device="cpu"), judge=ModelRuntime(device="cpu"))
    assert asked(kept_off, gpus=8).gpus == 0


def test_a_worker_reserves_the_cpus_of_its_most_demanding_model():
    config = RecaptionConfig(captioner=ModelRuntime(cpus_per_worker=4), judge=ModelRuntime(cpus_per_worker=2))
    assert asked(config, gpus=0).cpus == 4


def test_one_card_never_takes_more_workers_than_it_has_shares_for():
    """16 CPUs and one GPU: one captioner, or four judges."""
    node = {"CPU": 16.0, "GPU": 1.0}
    assert workers_that_fit([node], asked(RecaptionConfig(), gpus=1)) == 1
    assert workers_that_fit([node], worker_resources(1, {"filter.judge": FilterConfig().judge})) == 4


def test_a_gpu_that_the_config_forces_is_named_where_it_does_not_fit():
    forced = RecaptionConfig(
        captioner=ModelRuntime(device="cuda", gpus_per_worker=0.5), judge=ModelRuntime(device="cpu")
    )
    assert asked(forced, gpus=0) == Resources(
        gpus=0.5, setting="recaption.captioner.device=cuda and recaption.captioner.gpus_per_worker"
    )


@pytest.mark.parametrize("stage", [filter_stage.STAGE, recaption.STAGE, evaluate.STAGE])
def test_where_models_are_placed_is_not_in_the_fingerprint_and_how_they_compute_is(stage):
    def with_judge(**changes: object) -> str:
        base = stage.config_type()
        config = base.model_copy(update={"judge": base.judge.model_copy(update=changes)})
        return fingerprint(stage, "default", config, {})

    assert with_judge(gpus_per_worker=0.5, cpus_per_worker=2.0) == with_judge()
    assert len({with_judge(), with_judge(batch_size=3), with_judge(dtype="bfloat16")}) == 3
