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
from components.conditioning.autoencoder import PixelAutoencoder, from_pixels
from components.distillation.metrics import perceptual_metric
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


def test_the_distance_of_all_is_the_mean_of_each_also_of_decoded_latents(small_captioner):
    distance = PerceptualDistance(small_captioner)
    images, truth = (from_pixels(noise_images(4, SIDE)[i : i + 2]) for i in (0, 2))
    each = distance.of_each(images, truth)
    assert each.shape == (2,) and not torch.equal(each[0], each[1])
    torch.testing.assert_close(each.mean(), distance(images, truth))
    torch.testing.assert_close(each[:1], distance(images[:1], truth[:1])[None])

    class Halved(PixelAutoencoder):
        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents / 2

    latents = (2 * images).requires_grad_()
    metric = perceptual_metric(distance, Halved())(latents, 2 * truth)
    torch.testing.assert_close(metric, each)
    metric.sum().backward()
    assert latents.grad is not None and latents.grad.abs().max() > 0


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
    with pytest.raises(InputError, match=r"type git .*take another captioner"):
        PerceptualDistance(Captioner(GitForCausalLM(config), processor))
