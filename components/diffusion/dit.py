"""A text-conditioned diffusion transformer: text and image tokens in one stream.

`DiT(x_t, t, text)` predicts x_0 from a noisy image, as large patches need (JiT, Li 2025). Blocks are
adaLN-zero (Peebles 2023) with QK-norm and rotary positions in (text, row, column) (FLUX). Called by the
losses and, through `velocity`, by the samplers.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.process import velocity_of_x_hat

FEW_TOKENS = 256  # up to which attention is written out on a CPU


class DiTConfig(BaseModel):
    """Sizes of the network. Lengths in pixels or features."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    image_size: int = Field(32, gt=0, description="side of the square image, in pixels")
    channels: int = Field(3, gt=0)
    patch: int = Field(8, gt=0, description="side of a patch, in pixels")
    width: int = Field(128, gt=0, description="features of a token")
    depth: int = Field(5, gt=0, description="blocks")
    heads: int = Field(4, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    vocabulary: int = Field(0, ge=0, description="token ids to embed; 0: the text arrives as features")
    text_features: int = Field(
        0, ge=0, description="width of frozen text features; 0: the text arrives as ids"
    )


class DiT(nn.Module):
    """x_hat = DiT(x_t, t, text): (B, C, H, W), (B,), TextTokens of B captions -> (B, C, H, W)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.image_size % config.patch:
            raise ValueError(f"image_size {config.image_size} is not a multiple of patch {config.patch}")
        if config.width % (config.heads * 2):
            raise ValueError(f"width {config.width} does not split into {config.heads} heads of even size")
        if (config.vocabulary > 0) == (config.text_features > 0):
            raise ValueError("set either vocabulary (learned text) or text_features (frozen text)")
        self.config = config
        width, pixels = config.width, config.channels * config.patch**2
        self.text_in = (
            nn.Embedding(config.vocabulary, width)
            if config.vocabulary
            else nn.Linear(config.text_features, width)
        )
        self.image_in = nn.Linear(pixels, width)
        self.time_in = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.modulation = nn.Linear(width, 8 * width)
        self.out = nn.Linear(width, pixels)
        self._initialise()

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        patch, side = self.config.patch, x_t.shape[-1] // self.config.patch
        image = self.image_in(rearrange(x_t, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch))
        words = self.text_in(text.values)
        condition = F.silu(self.time_in(time_features(t, self.config.width)))
        shared = self.modulation(condition).unflatten(
            -1, (8, -1)
        )  # (B, 8, D): six for blocks, two for the end
        tokens = torch.cat([words, image], dim=1).float()  # (B, L + h w, D)
        length, heads = words.shape[1], self.config.heads
        rotation = rotations(length, side, side, self.config.width // heads, x_t.device)
        mask = attention_bias(text.mask, side * side)
        for block in self.blocks:
            tokens = block(tokens, shared[:, :6], rotation, mask)
        shift, scale = shared[:, 6:, None].unbind(1)
        pixels = self.out(modulate(tokens[:, length:], shift, scale))
        return rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=side, p=patch, q=patch).float()

    def velocity(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """v_hat of the rectified flow, from the predicted x_0."""
        return velocity_of_x_hat(x_t, self(x_t, t, text), t)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias) if module.bias is not None else None
        if isinstance(self.text_in, nn.Embedding):
            nn.init.normal_(self.text_in.weight, std=1.0)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.out.weight)


class Block(nn.Module):
    """Attention and MLP on all tokens, both scaled, shifted and gated by the time.

    The shapes of the gates come from one projection for all blocks plus this block's own table (adaLN-single,
    Chen 2023), which starts at zero: every block starts as the identity (adaLN-zero, Peebles 2023).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, inner = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.modulation = nn.Parameter(torch.zeros(6, width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.LayerNorm(width // config.heads, bias=False)  # QK-norm (Dehghani 2023)
        self.key_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, inner, bias=False)
        self.mlp_out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, condition: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        six = (condition + self.modulation)[:, :, None]  # (B, 6, 1, D)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = six.unbind(1)
        qkv = self.qkv(modulate(tokens, shift_a, scale_a))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b n h d", three=3, h=self.heads)
        q, k = rotate(self.query_norm(q.float()), rotation), rotate(self.key_norm(k.float()), rotation)
        mixed = attend(q, k, v, mask)
        tokens = torch.addcmul(tokens, gate_a, self.attention_out(mixed).to(tokens.dtype))
        hidden = F.silu(self.mlp_in(modulate(tokens, shift_m, scale_m)))
        return torch.addcmul(tokens, gate_m, self.mlp_out(hidden).to(tokens.dtype))


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalised tokens (B, N, D), scaled by 1 + scale and shifted, both (B, 1, D)."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:]), 1 + scale)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of (B, N, h, d) in the values' precision, heads joined again: (B, N, h d).

    Written out on a CPU: for the few tokens trained there, the fused kernel's backward takes five times as long
    (measured, B = 32, N = 40).
    """
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    if v.device.type == "cpu" and q.shape[2] <= FEW_TOKENS:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        mixed = torch.softmax(scores.float() + mask, dim=-1).to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(v.dtype))
    return rearrange(mixed, "b h n d -> b n (h d)")


def time_features(t: Tensor, width: int, highest: float = 100.0) -> Tensor:
    """Sines and cosines of t (B,) at frequencies 1 … `highest`, (B, width); low, so that slopes in t stay tame."""
    frequencies = torch.exp(torch.linspace(0, math.log(highest), width // 2, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotations(length: int, height: int, width: int, features: int, device: torch.device) -> Tensor:
    """Unit complex numbers (L + height width, features / 2) of text tokens, then image tokens, in three axes.

    A third of the pairs turns with the text's position, a third with the row, a third with the column.
    """
    pairs = features // 2
    share = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    text = torch.zeros(length, 3, device=device)
    text[:, 0] = torch.arange(length, device=device)
    image = torch.zeros(height, width, 3, device=device)
    image[..., 1] = torch.arange(height, device=device)[:, None]
    image[..., 2] = torch.arange(width, device=device)[None, :]
    places = torch.cat([text, image.reshape(-1, 3)])
    angles = [
        places[:, axis, None] * torch.pi * torch.exp2(-torch.arange(n, device=device, dtype=torch.float32))
        for axis, n in enumerate(share)
    ]
    turned = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(turned), turned)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding (Su 2021): the features of x (B, N, h, d), as d / 2 complex numbers, times (N, d / 2)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation[:, None]).flatten(-2)


def attention_bias(text: Tensor, image_tokens: int) -> Tensor:
    """0 where a token may be looked at, -inf elsewhere: (B, 1, 1, L + image_tokens), from the mask (B, L)."""
    seen = F.pad(text, (0, image_tokens), value=True)
    return torch.zeros(seen.shape, device=text.device).masked_fill(~seen, -torch.inf)[:, None, None, :]
