"""The model of an exported pipeline: a module around the Generator. Copied into the export (code_copy.py)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from components.generation.generator import Generator
from components.generation.model_folder import Model, load_model
from components.precision import Precision
from components.randomness import SampleSeed

PRECISIONS: dict[torch.dtype | None, Precision] = {None: "no", torch.float32: "no", torch.bfloat16: "bf16"}


class StraightshotModel(nn.Module):
    """The network, as `transformer`, with its text encoder, its autoencoder and its card."""

    def __init__(self, model: Model, precision: Precision = "no") -> None:
        super().__init__()
        self.transformer = model.network
        self.model, self.precision = model, precision

    @classmethod
    def from_pretrained(
        cls, folder: str, torch_dtype: torch.dtype | None = None, **_: Any
    ) -> "StraightshotModel":
        """Read the model's folder, as diffusers calls it.

        torch_dtype: torch.bfloat16 to compute in it where that is safe; weights stay float32.
        """
        if torch_dtype not in PRECISIONS:
            raise ValueError(f"dtype is {torch_dtype}; give torch.float32 or torch.bfloat16")
        return cls(load_model(Path(folder), upsampler=False), PRECISIONS[torch_dtype])

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.transformer.parameters()).dtype

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[tuple[int, int]],
        *,
        steps: int | None,
        guidance: float | None,
    ) -> npt.NDArray[np.uint8]:
        """One image per prompt, (N, H, W, 3), each from the noise of its own (seed, number)."""
        model = replace(
            self.model,
            encoder=self.model.encoder.to(self.device),
            autoencoder=self.model.autoencoder.to(self.device),
        )
        generator = Generator(model, precision=self.precision)
        return generator.generate_each(
            prompts, [SampleSeed(*seed) for seed in seeds], steps=steps, guidance=guidance
        )
