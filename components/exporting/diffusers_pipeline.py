"""The pipeline of an exported model. Copied into the export (code_copy.py); it needs nothing of Straightshot.

pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)
pipe("a red circle", seed=0).images[0]
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from PIL import Image
from torch import nn


class StraightshotPipeline(DiffusionPipeline):
    """Images of prompts, as Straightshot's Generator makes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.register_modules(model=model)

    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> "ImagePipelineOutput | tuple[object]":
        """Generate `num_images_per_prompt` images of each prompt, those of the first one first.

        num_inference_steps, guidance_scale: by default the model's own; a student has absorbed its guidance.
        seed: image i is that of `straightshot generate --as-is --seed SEED`; by default it is drawn, from
        `generator` if there is one. output_type: "pil", or "np" and "pt": floats in [0, 1], (N, H, W, 3) and
        (N, 3, H, W). return_dict: False for a tuple of the images. Raises ValueError for a setting out of
        range.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; give 'pil', 'np' or 'pt'")
        if seed is None:
            device = generator.device if generator is not None else "cpu"
            seed = int(torch.randint(2**62, (), generator=generator, device=device))
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        seeds = [(seed, number) for number in range(len(prompts))]
        pixels = self.model.generate(prompts, seeds, steps=num_inference_steps, guidance=guidance_scale)
        if output_type == "pil":
            images: Any = [Image.fromarray(image) for image in pixels]
        else:
            images = pixels.astype("float32") / 255
        if output_type == "pt":
            images = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
