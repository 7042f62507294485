"""The perceptual distance: a captioner's own features of images, and what a fit on it brings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.autoencoding.perceptual import PerceptualDistance
from components.captioning.architecture import make_processor, train_tokenizer
from components.captioning.captioner import Captioner
from components.conditioning.autoencoder import from_pixels
from components.errors import InputError

SIDE = 32


def noise_images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_features_are_those_the_captioner_sees(small_captioner):
    """Of the processor's own pixels the tower's hidden states, each place's of mean square 1."""
    pixels = noise_images(2, SIDE)
    inputs = small_captioner.processor.image_processor(
        [Image.fromarray(image) for image in pixels], return_tensors="pt"
    )
    with torch.no_grad():
        states = small_captioner.model.model.vision_tower(
            inputs["pixel_values"], output_hidden_states=True
        ).hidden_states
        features = PerceptualDistance(small_captioner).features(from_pixels(pixels))
    assert [tuple(layer.shape[1:]) for layer in features] == [tuple(state.shape[1:]) for state in states]
    for layer, state in zip(features, states, strict=True):
        mean_squares = layer.square().mean(1)
        alive = state.square().mean(1) > 1e-3
        torch.testing.assert_close(
            mean_squares[alive], torch.ones_like(mean_squares[alive]), rtol=2e-3, atol=0
        )
        cosines = torch.cosine_similarity(layer, state, dim=1)
        torch.testing.assert_close(cosines[alive], torch.ones_like(cosines[alive]), rtol=1e-4, atol=0)


def test_it_is_zero_of_equal_images_and_only_the_image_gets_a_gradient(small_captioner):
    distance = PerceptualDistance(small_captioner)
    images, truth = (from_pixels(noise_images(4, SIDE)[i : i + 2]).requires_grad_() for i in (0, 2))
    assert distance(images, images.detach()).item() == 0
    value = distance(images, truth)
    value.backward()
    assert value.item() > 0.01
    assert images.grad is not None and float(images.grad.abs().max()) > 0
    assert truth.grad is None
    assert all(parameter.grad is None for parameter in small_captioner.model.parameters())


def test_images_of_another_size_are_resized(small_captioner):
    """A plain image has the same features at every size."""
    distance = PerceptualDistance(small_captioner)
    plain = torch.full((1, 3, 2 * SIDE, 2 * SIDE), 0.3)
    for layer, same in zip(
        distance.features(plain), distance.features(plain[..., :SIDE, :SIDE]), strict=True
    ):
        torch.testing.assert_close(layer, same, rtol=1e-4, atol=1e-5)


def test_a_captioner_that_hides_its_tower_is_refused():
    from transformers import GitConfig, GitForCausalLM

    @dataclass
    class GitProcessor:
        image_processor: Any

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = GitConfig(vision_config={**sizes, "image_size": SIDE, "patch_size": 16}, vocab_size=20, **sizes)
    processor = GitProcessor(make_processor(train_tokenizer(["a"], 300), SIDE).image_processor)
    with pytest.raises(InputError, match=r"type git .*set train\.autoencoder\.perceptual to 0"):
        PerceptualDistance(Captioner(GitForCausalLM(config), processor))
