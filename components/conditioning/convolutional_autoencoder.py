"""A small convolutional autoencoder whose decoder also takes noisy latents.

Each place of the latents lies on a sphere (its channels have mean square 1), so that noise has one meaning
everywhere; the fit adds such noise, and the decoder learns to draw a whole image from latents that are a
little off. A diffusion model on them need not be exact, in one step as in many.
"""

import hashlib
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.conditioning.config import AutoencoderConfig

WEIGHTS = "autoencoder.safetensors"
GROUP = 16  # channels that are normalised together
SMALLEST_SQUARE = 1e-6  # mean square of a place's channels that is told from zero


class ConvolutionalAutoencoder(nn.Module):
    """Images (B, 3, H, W) to latents (B, C, H / downscale, W / downscale) and back; see Autoencoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths, halvings = config.widths, len(config.widths) - 1
        first, last = widths[0], widths[-1]
        self.image_in = nn.Conv2d(3, first, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(4 * a, b, 1) for a, b in pairwise(widths))
        self.encoder_blocks = nn.ModuleList(ResidualBlock(width) for width in widths[1:])
        self.latents_out = nn.Conv2d(last, config.channels, 1)
        self.latents_in = nn.Conv2d(config.channels, last, 1)
        counts = [1] * min(2, halvings) + [config.decoder_blocks] * (len(widths) - min(2, halvings))
        self.decoder_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(widths, counts, strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))
        self.image_norm = group_norm(first)
        self.image_out = nn.Conv2d(first, 3, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub has no such

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def downscale(self) -> int:
        return self.config.downscale

    @cached_property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return f"fit:{digest.hexdigest()}"

    def encode(self, images: Tensor) -> Tensor:
        """Latents of images, their mean square 1 at every place."""
        x = self.image_in(images.contiguous(memory_format=torch.channels_last))
        for down, block in zip(self.downs, self.encoder_blocks, strict=True):
            x = block(down(F.pixel_unshuffle(x, 2)))
        latents = self.latents_out(x).float()
        return latents * (latents.square().mean(1, keepdim=True) + SMALLEST_SQUARE).rsqrt()

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, also of somewhat noisy ones."""
        x = self.decoder_blocks[-1](self.latents_in(latents.contiguous(memory_format=torch.channels_last)))
        for up, blocks in zip(reversed(self.ups), reversed(self.decoder_blocks[:-1]), strict=True):
            x = blocks(F.pixel_shuffle(up(x), 2))
        image: Tensor = self.image_out(F.silu(self.image_norm(x)))
        return image.float()

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The images again, through latents with noise (B, C, h, w) added."""
        return self.decode(self.encode(images) + noise)

    def save(self, folder: Path) -> None:
        """Write its weights into a model folder."""
        from safetensors.torch import save_file

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS)

    @classmethod
    def load(cls, config: AutoencoderConfig, folder: Path) -> "ConvolutionalAutoencoder":
        """Read its weights from a model folder. Raises as load_autoencoder says."""
        from safetensors.torch import load_file

        autoencoder = cls(config)
        autoencoder.load_state_dict(load_file(folder / WEIGHTS))
        return autoencoder.eval().requires_grad_(False)


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.silu(self.conv_in(F.silu(self.norm(x)))))


def group_norm(width: int) -> nn.GroupNorm:
    """Normalisation of groups of about GROUP channels that divide `width`."""
    groups = max(1, width // GROUP)
    while width % groups:
        groups -= 1
    return nn.GroupNorm(groups, width)
