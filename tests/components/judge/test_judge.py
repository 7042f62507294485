"""The judge: any folder that open_clip saved loads, and its scores are what open_clip itself computes."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from components.judge.causal_text import ShortTexts
from components.judge.judge import BATCH, Judge
from tests.small_judge import save_judge

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny untrained CLIP, saved as open_clip saves one."""
    return save_judge(tmp_path_factory.mktemp("judge"), CONFIG)


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(f"local-dir:{folder}")


def random_images(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 40, 48, 3), np.uint8)
    return [Image.fromarray(image) for image in pixels]


def test_features_are_those_of_open_clip(judge: Judge, folder: Path):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    images, texts = random_images(3), ["a red circle", "two dogs", ""]
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(i) for i in images]), normalize=True)
        expected_texts = model.encode_text(tokenizer(texts), normalize=True)
    np.testing.assert_allclose(judge.image_features(images), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(judge.text_features(texts), expected_texts.numpy(), atol=1e-6)


def test_texts_have_the_same_features_without_their_padding(judge: Judge):
    texts = ["a red circle", "", "a blue square above " * 40, "a red circle", "a star"]
    short = ShortTexts(judge)
    assert np.allclose(short.features(texts), judge.text_features(texts), atol=1e-5)
    assert np.array_equal(short.features(texts[:1]), short.features(texts)[:1])  # each is computed once


def test_a_score_is_the_cosine_of_its_pair(judge: Judge):
    images, texts = random_images(5), [f"{n} dogs" for n in range(5)]
    scores = judge.score(images, texts)
    assert scores.dtype == np.float32
    expected = (judge.image_features(images) @ judge.text_features(texts).T).diagonal()
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(judge.image_features(images), axis=1), 1, atol=1e-6)


def test_prepared_images_score_as_images_and_the_same_batch_to_the_bit(judge: Judge):
    images, texts = random_images(BATCH + 3), ["a dog"] * (BATCH + 3)
    once = judge.score(images, texts)
    prepared = judge.score([judge.prepare(image) for image in images], texts)
    assert once.tobytes() == prepared.tobytes() == judge.score(images, texts).tobytes()


def test_a_judge_knows_the_side_of_its_images(judge: Judge):
    assert judge.image_side == judge.prepare(random_images(1)[0]).shape[-1] == 32


def test_no_images_have_no_scores(judge: Judge):
    assert judge.score([], []).shape == (0,)
    assert judge.image_features([]).shape == (0, 16)


def test_an_image_without_its_text_is_refused(judge: Judge):
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        judge.score(random_images(2), ["a dog"])


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("local-dir:/nowhere/judge", None, "no such folder"),
        ("ViT-B-32", None, "pretrained tag"),
        ("ViT-B-999", "openai", "ViT-B-999"),
    ],
)
def test_a_judge_that_is_not_there_is_one_line(model, pretrained, message):
    with pytest.raises(ValueError, match=message) as caught:
        Judge.load(model, pretrained)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match="local-dir") as caught:
        Judge.load(f"local-dir:{tmp_path}")
    assert "\n" not in str(caught.value)
