"""A teacher with an autoguide: a weaker network beside it, which guidance and so its student know of."""

import numpy as np
import pytest
from pydantic import ValidationError

from components.diffusion.dit import DiT
from components.evaluation.results import Metrics
from components.generation.generator import Generator
from components.generation.model_folder import load_model
from pipelines.execution.progress import Progress
from pipelines.registry.lineage import Lineage
from pipelines.registry.model_card import model_card
from pipelines.stage import Input
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.train import STAGE as TRAIN
from tests.pipelines.stages.small_trainings import (
    NETWORK,
    contents,
    interrupted_after,
    output,
    run,
    run_train,
)

AUTOGUIDE = {"width": 16, "depth": 1, "heads": 1, "images": 40, "scale": 2.0}


def test_the_autoguide_is_trained_beside_the_teacher_and_changes_what_its_guidance_gives(
    whole, tmp_path, tracking
):
    home, shard, alone, distilled = whole
    train = run_train(tmp_path, tracking, shard, autoguide=AUTOGUIDE)
    folder, without = output(tmp_path, train) / "model", output(home, alone) / "model"
    assert (folder / "model.safetensors").read_bytes() == (without / "model.safetensors").read_bytes()
    model = load_model(folder)
    sizes = {name: AUTOGUIDE[name] for name in ("width", "depth", "heads")}
    assert model.card.autoguide.dit == model.card.dit.resized(**sizes)
    assert model.card.autoguide.scale == 2 and isinstance(model.autoguide, DiT)
    assert model.autoguide.out.weight.abs().max() > 0  # where it started at zero
    images = [
        Generator.load(one, "cpu").generate(["all red"], guidance=scale).astype(int)
        for one in (folder, without)
        for scale in (1.0, 3.0)
    ]
    assert np.array_equal(images[0], images[2]) and not np.array_equal(images[1], images[3])
    card = model_card("of a student", {("train", "here"): train}, Lineage((), (), {}), Metrics((), {}))
    assert (
        "DiT of width 32, depth 1, patch 4, image_size 8; autoguide of width 16, depth 1, images 40" in card
    )
    teacher = Input("train", str(output(tmp_path, train)), train.digest, train)
    inputs = {"train": (teacher,), "shard": (shard,)}
    student = run(tmp_path, DISTILL, tracking, inputs, consistency={"intervals": 4})
    files = contents(tmp_path, student)
    assert files.keys() == contents(home, distilled).keys()  # it has no autoguide itself
    assert files["model/model.safetensors"] != contents(home, distilled)["model/model.safetensors"]


def test_an_interrupted_autoguide_goes_on_to_the_same_bytes(whole, tmp_path, tracking, monkeypatch):
    settings = {"autoguide": AUTOGUIDE, "images": 16, "upsampler": {"model": "none"}}
    undisturbed = run_train(tmp_path / "undisturbed", tracking, whole[1], **settings)
    monkeypatch.setattr(Progress, "task", interrupted_after(36))
    with pytest.raises(KeyboardInterrupt):
        run_train(tmp_path / "resumed", tracking, whole[1], **settings)
    monkeypatch.undo()
    names = [path.name for path in (tmp_path / "resumed").rglob("autoguide/0*")]
    assert names == [f"{32:012d}"]
    resumed = run_train(tmp_path / "resumed", tracking, whole[1], **settings)
    assert contents(tmp_path / "resumed", resumed) == contents(tmp_path / "undisturbed", undisturbed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"autoguide": {"width": 30}}, "width 30 does not split into 4 heads of an even size"),
        (
            {"autoguide": {}, "init": "champion", "reflow": {}},
            "reflow absorbs its guidance, so its model has no autoguide; set autoguide=null",
        ),
    ],
)
def test_an_autoguide_that_cannot_be_is_one_line(settings, message):
    with pytest.raises(ValidationError, match=message) as caught:
        TRAIN.config_type(network=NETWORK, **settings)
    assert len(caught.value.errors()) == 1


def test_a_config_without_an_autoguide_has_the_fingerprint_it_had():
    assert "autoguide" not in TRAIN.config_type().model_dump(mode="json")
