"""How differently a vision tower sees two images: a perceptual distance (Johnson 2016; LPIPS, Zhang 2018).

The tower is a captioner's, which tells apart what captions name. A distance between pixels hardly feels a
dented outline; captions do.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.captioning.captioner import Captioner
from components.errors import InputError

SMALLEST_SQUARE = 1e-6  # mean square of a place's features that is told from zero


class PerceptualDistance:
    """The mean squared difference of a captioner's image features, over all layers of its vision tower.

    As in LPIPS the features of a place are normalised (here to mean square 1), so that no layer outweighs the
    others. Raises InputError where the captioner does not give its tower's layers.
    """

    def __init__(self, captioner: Captioner) -> None:
        self._model = captioner.model.requires_grad_(False)
        prepare: Any = captioner.processor.image_processor
        self._size = _size(prepare.size)
        self._mean, self._std = (
            torch.tensor(x).view(1, 3, 1, 1) for x in (prepare.image_mean, prepare.image_std)
        )
        self.features(torch.zeros(1, 3, *self._size))  # so that another kind of captioner is refused here

    def __call__(self, images: Tensor, truth: Tensor) -> Tensor:
        """The distance of images (B, 3, H, W) in [-1, 1] from the true ones, which get no gradient: ()."""
        with torch.no_grad():
            expected = self.features(truth)
        pairs = zip(self.features(images), expected, strict=True)
        return torch.stack([(ours - theirs).square().mean() for ours, theirs in pairs]).mean()

    def of_each(self, images: Tensor, truth: Tensor) -> Tensor:
        """The same distance for each image alone, (B,): their mean is that of all."""
        with torch.no_grad():
            expected = self.features(truth)
        pairs = zip(self.features(images), expected, strict=True)
        return torch.stack([(ours - theirs).square().flatten(1).mean(1) for ours, theirs in pairs]).mean(0)

    def features(self, images: Tensor) -> list[Tensor]:
        """Each layer's normalised features of images (B, 3, H, W) in [-1, 1]: (B, C, h, w) or (B, N, C)."""
        self._model.to(images.device)
        pixels = F.interpolate(images, self._size, mode="bilinear", antialias=True)
        pixels = ((pixels + 1) / 2 - self._mean.to(pixels.device)) / self._std.to(pixels.device)
        layers = _layers(self._model, pixels.to(self._model.dtype))
        return [_normalised(layer.float()) for layer in layers]


def _layers(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    seen = getattr(model.base_model, "get_image_features", None)
    layers = getattr(seen(pixels, output_hidden_states=True), "hidden_states", None) if seen else None
    if not layers:
        raise InputError(
            f"a captioner of type {model.config.model_type} does not show the layers of its vision tower;"
            " take another captioner, or no perceptual distance"
        )
    return tuple(layers)


def _normalised(layer: Tensor) -> Tensor:
    channels = 1 if layer.ndim == 4 else -1
    return layer * (layer.square().mean(channels, keepdim=True) + SMALLEST_SQUARE).rsqrt()


def _size(size: Any) -> tuple[int, int]:
    """(height, width) of what an image processor of transformers makes: by both, or by the shortest edge."""
    if size.get("height"):
        return size["height"], size["width"]
    return size["shortest_edge"], size["shortest_edge"]
