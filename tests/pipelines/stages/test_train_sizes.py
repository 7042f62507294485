"""A model of several sizes: trained and distilled on buckets, listed on its card, generated at each."""

from pathlib import Path

import pytest

from components.errors import InputError
from components.generation.generator import Generator
from components.image_size import ImageSize
from components.shards.index import INDEX_NAME, load_index
from pipelines.stage import Input
from pipelines.stages.distill import STAGE as DISTILL
from pipelines.stages.train import STAGE as TRAIN
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.small_trainings import NETWORK, TEXT, TRAINING, run, shards

SMALL = {"network": NETWORK, "text": TEXT, "upsampler": {"model": "none"}, "validation_images": 0}


def in_buckets(folder: Path, *buckets: str) -> Input:
    """Two tars of plain colours, each of its bucket."""
    given = shards(folder)
    index = load_index(folder / INDEX_NAME)
    placed = [
        shard.model_copy(update={"bucket": ImageSize.parse(bucket)})
        for shard, bucket in zip(index.shards, buckets, strict=True)
    ]
    text = index.model_copy(update={"shards": tuple(placed)}).to_json()
    (folder / INDEX_NAME).write_text(text)
    return Input("shard", given.location, str(hash(text)))


def model_of(home: Path, receipt: Receipt) -> Path:
    return home / receipt.stage / receipt.fingerprint / "model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tracking) -> tuple[Path, Receipt, Input]:
    home = tmp_path_factory.mktemp("sizes")
    given = in_buckets(home / "shards", "8x8", "12x4")
    return home, run(home, TRAIN, tracking, {"shard": (given,)}, **SMALL), given


def test_a_teacher_of_two_sizes_and_its_student_generate_both(trained, tracking):
    home, train, given = trained
    teacher = Input("train", str(model_of(home, train).parent), train.digest, train)
    settings = {"consistency": {"intervals": 4}, "tuned_steps": [2], "tuning_images": 16}
    distill = run(home, DISTILL, tracking, {"train": (teacher,), "shard": (given,)}, **settings)
    for receipt in (train, distill):
        generator = Generator.load(model_of(home, receipt), device="cpu")
        assert [str(size) for size in generator.sizes] == ["8x8", "12x4"]
        for size in generator.sizes:
            images = generator.generate(["all red", "all blue"], size=size)
            assert images.shape == (2, *size, 3)


def test_one_square_bucket_trains_the_model_that_no_bucket_trains_to_the_bit(tmp_path, tracking):
    settings = {**SMALL, "images": 4 * TRAINING["batch_size"]}
    without = run(tmp_path, TRAIN, tracking, {"shard": (shards(tmp_path / "without"),)}, **settings)
    given = in_buckets(tmp_path / "square", "8x8", "8x8")
    square = run(tmp_path, TRAIN, tracking, {"shard": (given,)}, **settings)
    assert without.fingerprint != square.fingerprint
    for name in ("model.safetensors", "config.json", "../curve.json"):
        one, other = ((model_of(tmp_path, receipt) / name).read_bytes() for receipt in (without, square))
        assert one == other, name


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        (("8x8", "10x6"), "the shards have a bucket of 10x6, and the model's patches are 4 pixels a side"),
        (("12x4", "4x12"), "the shards have images of 12x4, 4x12, and none of 8x8, the model's own size"),
    ],
    ids=["not covered by patches", "none of the model's own size"],
)
def test_buckets_that_do_not_fit_the_model_are_one_line(tmp_path, tracking, buckets, message):
    given = in_buckets(tmp_path / "shards", *buckets)
    with pytest.raises(InputError, match=message):
        run(tmp_path, TRAIN, tracking, {"shard": (given,)}, **SMALL)
