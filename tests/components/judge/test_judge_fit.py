"""Fitting a judge: it learns which text fits which image, and open_clip loads it as any pretrained one."""

import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from components.corpus.labelled import LabelledImage
from components.judge.causal_text import ShortTexts
from components.judge.config import JudgeFitConfig
from components.judge.fit import contrastive_loss, excerpt, fit_judge
from components.judge.judge import Judge
from components.training.config import OptimizerConfig, TrainingConfig

COLOURS = {
    "red": (230, 20, 30), "blue": (30, 60, 235), "green": (20, 165, 45), "white": (250, 250, 250),
    "pink": (255, 130, 200), "black": (10, 10, 10), "cyan": (20, 220, 235), "grey": (128, 128, 128),
}  # fmt: skip
RATES = OptimizerConfig(learning_rate=2e-3, muon_learning_rate=2e-2, warmup_images=64)


def config(images: int) -> JudgeFitConfig:
    training = TrainingConfig(images=images, batch_size=32, optimizer=RATES, ema_halflife_images=0)
    return JudgeFitConfig(
        image_size=32, width=64, text_depth=1, vocabulary=320, context=24, training=training
    )


def labelled() -> list[LabelledImage]:
    """Every ordered pair of colours, one inside the other."""
    records = []
    for around, rgb in COLOURS.items():
        for inside, other in COLOURS.items():
            pixels = np.full((40, 40, 3), rgb, np.uint8)
            pixels[12:28, 12:28] = other
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            short, long = f"{inside} in {around}", f"a {inside} square in the middle of a {around} one"
            records.append(LabelledImage(buffer.getvalue(), short, long))
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("judge")
    fit_judge(labelled(), path, config(2560), seed=0)
    return path


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(f"local-dir:{folder}")


@pytest.mark.parametrize("style", [0, 1])
def test_a_true_caption_scores_above_those_of_other_images(judge, style):
    records = labelled()
    images = judge.image_features([record.open() for record in records])
    scores = images @ judge.text_features([record.captions[style] for record in records]).T
    true, other = np.diag(scores), scores[~np.eye(len(records), dtype=bool)]
    assert (true[:, None] > other[None]).mean() > 0.95  # the area under the ROC curve


def test_case_and_spaces_make_no_difference(judge):
    plain, other = judge.text_features(["red in blue", "  RED in\nBlue "])
    np.testing.assert_array_equal(plain, other)


def test_a_text_of_any_length_and_script_has_unit_features(judge):
    features = judge.text_features(["", "red " * 500, "красный круг 红色", "\u0000"])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)


def test_open_clip_loads_it_as_a_pretrained_model(folder, judge):
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    photo = labelled()[1].open()
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(photo)[None], normalize=True)
        text = model.encode_text(tokenizer(["blue in red"]), normalize=True)
    assert judge.score([photo], ["blue in red"])[0] == pytest.approx((image @ text.T).item(), abs=1e-5)
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pt")), "weights are safetensors only"


def test_the_whole_image_counts_whatever_its_shape(judge):
    """Squashed, not cropped: what is at the edge of a wide image counts."""
    wide = np.full((32, 96, 3), 128, np.uint8)
    edged = wide.copy()
    edged[:, :16] = (230, 20, 30)
    plain, other = judge.image_features([Image.fromarray(wide), Image.fromarray(edged)])
    assert plain @ other < 0.999


def test_the_fit_is_a_function_of_its_arguments(tmp_path):
    torch.set_num_threads(1)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        fit_judge(labelled(), tmp_path / name, config(64), seed=seed)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert files[0]["open_clip_model.safetensors"] != files[2]["open_clip_model.safetensors"]


class Fixed(torch.nn.Module):
    """A CLIP whose features and scale are given."""

    def forward(self, image: torch.Tensor, text: torch.Tensor):
        return image, text, torch.tensor(14.0)


def features(seed: int, rows: int = 6) -> torch.Tensor:
    values = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


def test_with_one_match_each_the_loss_is_open_clips():
    image, text = features(0), features(1)
    batch = {"pixels": image, "tokens": text, "matches": torch.eye(6)}
    expected = open_clip.loss.ClipLoss()(image, text, torch.tensor(14.0))
    torch.testing.assert_close(contrastive_loss(Fixed(), batch, torch.Generator()).loss, expected)


def test_a_text_that_is_true_of_two_images_is_no_mistake_for_either():
    """Two equal images with the same caption: the best features are equal, which leaves a coin's entropy."""
    first, second = torch.eye(8)[:1], torch.eye(8)[1:2]
    same = torch.cat([first, first, second])
    matches = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    batch = {"pixels": same, "tokens": same, "matches": matches}
    loss = contrastive_loss(Fixed(), batch, torch.Generator()).loss
    assert loss.item() == pytest.approx(2 / 3 * np.log(2), abs=1e-4)


def test_an_excerpt_is_a_run_of_the_captions_words():
    caption = "a large red circle to the left of a small blue square"
    rng = np.random.default_rng(0)
    for _ in range(200):
        cut = excerpt(caption, rng)
        assert cut and f" {cut} " in f" {caption} "
        assert len(cut.split()) >= 3, "a quarter of it or more"
    assert excerpt("one", rng) == "one"


def test_its_texts_have_the_same_features_without_their_padding(judge):
    texts = ["a red circle", "", "a blue square above " * 40, "a star"]
    assert np.allclose(ShortTexts(judge).features(texts), judge.text_features(texts), atol=1e-5)
