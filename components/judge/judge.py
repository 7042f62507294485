"""The judge: an open_clip model that scores how well a text fits an image.

Any open_clip model serves: one that `judge/fit.py` fitted, or a pretrained one by name, by hub id or by
folder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from components.errors import REASON_LENGTH, InputError, one_line

Features = npt.NDArray[np.float32]
T = TypeVar("T")

LOCAL = "local-dir:"
PRECISIONS = {"float32": "fp32", "bfloat16": "pure_bf16", "float16": "pure_fp16"}  # open_clip's names
BATCH = 64  # images or texts at once, by default; a score's last bits depend on the batch it was made in


@dataclass(frozen=True)
class Judge:
    """A loaded model with its own preprocessing and tokenizer."""

    model: Any  # open_clip.CLIP, or another of its models
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_size: int = BATCH

    @staticmethod
    def load(
        model: str,
        pretrained: str | None = None,
        device: str = "cpu",
        *,
        dtype: str = "float32",
        batch_size: int = BATCH,
    ) -> "Judge":
        """Load "local-dir:PATH", "hf-hub:OWNER/NAME", or an open_clip name with its `pretrained` tag or file.

        dtype: of weights and arithmetic, float32, bfloat16 or float16. batch_size: images or texts at once.
        Raises InputError when there is no such model, or it cannot be read.
        """
        import open_clip

        if model.startswith(LOCAL) and not Path(model.removeprefix(LOCAL)).is_dir():
            raise InputError(f"judge '{model}': no such folder; give a folder that open_clip saved")
        if not model.startswith((LOCAL, "hf-hub:")) and pretrained is None:
            raise InputError(f"judge '{model}': name its pretrained tag too, such as ViT-B-32 with openai")
        try:
            network, preprocess = open_clip.create_model_from_pretrained(
                model, pretrained=pretrained, device=device, precision=PRECISIONS[dtype]
            )
            tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError, KeyError, AssertionError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(f"judge '{model}' ({pretrained or 'its own weights'}): {reason}") from error
        return Judge(
            network.eval(), preprocess, tokenizer, torch.device(device), getattr(torch, dtype), batch_size
        )

    @property
    def image_side(self) -> int | None:
        """Pixels along the longer side of its input; None where the model does not say."""
        size = getattr(self.model.visual, "image_size", None)
        return size if size is None or isinstance(size, int) else max(size)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """The image as the model's input, small: keep this rather than many decoded images. (3, H, W)"""
        return self.preprocess(image)

    def image_features(self, images: Sequence[Image.Image | torch.Tensor]) -> Features:
        """Unit vectors of RGB images, or of what `prepare` made of them. (N, D)"""

        def encode(batch: list[Image.Image | torch.Tensor]) -> torch.Tensor:
            pixels = torch.stack([i if isinstance(i, torch.Tensor) else self.prepare(i) for i in batch])
            return self.model.encode_image(pixels.to(self.device, self.dtype), normalize=True)

        return self._features(images, encode)

    def text_features(self, texts: Sequence[str]) -> Features:
        """Unit vectors of texts; what is longer than the model's context is cut by its tokenizer. (N, D)"""

        def encode(batch: list[str]) -> torch.Tensor:
            return self.model.encode_text(self.tokenizer(batch).to(self.device), normalize=True)

        return self._features(texts, encode)

    def score(self, images: Sequence[Image.Image | torch.Tensor], texts: Sequence[str]) -> Features:
        """Cosine of each image (or prepared image) and its text, in [-1, 1]. (N,)"""
        if len(images) != len(texts):
            raise ValueError(
                f"{len(images)} images and {len(texts)} texts; a score needs a text for each image"
            )
        return np.einsum("nd,nd->n", self.image_features(images), self.text_features(texts))

    def _features(self, items: Sequence[T], encode: Callable[[list[T]], torch.Tensor]) -> Features:
        with torch.inference_mode():
            encoded = [encode(batch).float().cpu().numpy() for batch in _batches(items, self.batch_size)]
        return np.concatenate(encoded) if encoded else np.empty((0, self._width()), np.float32)

    def _width(self) -> int:
        """The length of a feature vector, that of one text."""
        return self.text_features([""]).shape[1]


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
