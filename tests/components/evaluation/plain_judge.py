"""A judge that can be computed by hand: 4 x 4 mean colours; every text is a grey page."""

import numpy as np
import torch
import torch.nn.functional as F

from components.judge.judge import Judge


class Pooled(torch.nn.Module):
    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        return F.normalize(F.adaptive_avg_pool2d(pixels, 4).flatten(1) + 1e-3, dim=1)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return F.normalize(torch.ones(len(tokens), 48), dim=1)


def plain_judge() -> Judge:
    return Judge(
        model=Pooled(),
        preprocess=lambda image: torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1),
        tokenizer=lambda texts: torch.zeros(len(texts), 1),
        device=torch.device("cpu"),
    )
