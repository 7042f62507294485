"""A text-conditioned diffusion transformer: text and image tokens in one stream.

`DiT(x_t, t, text)` predicts x_0 from a noisy image, as large patches need (JiT, Li 2025). Blocks are
adaLN-zero (Peebles 2023) with QK-norm and the pooled text beside the time (SD3, Esser 2024); places are
learned, and turn a part of each head's features (rotary, Su 2021).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.conditioning.token_mixing import WordEmbedding
from components.diffusion.config import DiTConfig
from components.diffusion.process import velocity_of_x_hat

POSITION_SCALE = 0.5  # spread of the learned places beside words and patches of about 1
FEW_TOKENS = 256  # up to which attention is written out on a CPU


class DiT(nn.Module):
    """x_hat = DiT(x_t, t, text): (B, C, H, W), (B,), TextTokens of B captions -> (B, C, H, W)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if (config.vocabulary > 0) == (config.text_features > 0):
            raise ValueError("set either vocabulary (learned text) or text_features (frozen text)")
        self.config = config
        width, pixels = config.width, config.channels * config.patch**2
        self.text_in = (
            WordEmbedding(config.vocabulary, width)
            if config.vocabulary
            else nn.Linear(config.text_features, width)
        )
        self.image_in = nn.Linear(pixels, width)
        places = (config.image_size // config.patch) ** 2
        self.image_positions = nn.Parameter(POSITION_SCALE * torch.randn(places, width))
        self.text_positions = nn.Parameter(POSITION_SCALE * torch.randn(config.text_length, width))
        self.pooled_in = nn.Linear(width, width, bias=False)
        self.time_in = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(config, first=depth == 0) for depth in range(config.depth))
        self.modulation = nn.Linear(width, 8 * width)
        self.out = nn.Linear(width, pixels)
        self._initialise()

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        patch, side = self.config.patch, x_t.shape[-1] // self.config.patch
        image = self.image_in(rearrange(x_t, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch))
        image = image + self.image_positions
        words = self.text_in(text.values, text.mask) if self.config.vocabulary else self.text_in(text.values)
        pooled = self.pooled_in(masked_mean(words, text.mask))
        condition = F.silu(self.time_in(time_features(t, self.config.width)) + pooled)
        words = words + self.text_positions[: words.shape[1]]
        shared = self.modulation(condition).unflatten(-1, (8, -1))  # (B, 8, D): 6 for blocks, 2 at the end
        tokens = torch.cat([words, image], dim=1).float()  # (B, L + h w, D)
        bias = attention_bias(text.mask, side * side)
        rotation = rotations(words.shape[1], side, side, self.config.width // self.config.heads, x_t.device)
        first_values: Tensor | None = None
        for block in self.blocks:
            tokens, first_values = block(tokens, shared[:, :6], rotation, bias, first_values)
        shift, scale = shared[:, 6:, None].unbind(1)
        pixels = self.out(modulate(tokens[:, words.shape[1] :], shift, scale))
        return rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=side, p=patch, q=patch).float()

    def velocity(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """v_hat of the rectified flow, from the predicted x_0."""
        return velocity_of_x_hat(x_t, self(x_t, t, text), t)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias) if module.bias is not None else None
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.out.weight)


class Block(nn.Module):
    """Attention and MLP on all tokens, both scaled, shifted and gated by the time.

    The shapes of the gates come from one projection for all blocks plus this block's own table (adaLN-single,
    Chen 2023), which starts at zero: every block starts as the identity (adaLN-zero, Peebles 2023).
    """

    def __init__(self, config: DiTConfig, *, first: bool) -> None:
        super().__init__()
        width, inner = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.modulation = nn.Parameter(torch.zeros(6, width))
        # Value residual (Zhou 2024): how much of the first block's values, which itself has none to mix in.
        self.value_mix = None if first else nn.Parameter(torch.tensor(0.5))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.LayerNorm(width // config.heads, bias=False)  # QK-norm (Dehghani 2023)
        self.key_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, inner, bias=False)
        self.mlp_out = nn.Linear(inner, width, bias=False)

    def forward(
        self, tokens: Tensor, condition: Tensor, rotation: Tensor, bias: Tensor, first_values: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        six = (condition + self.modulation)[:, :, None]  # (B, 6, 1, D)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = six.unbind(1)
        qkv = self.qkv(modulate(tokens, shift_a, scale_a))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b n h d", three=3, h=self.heads)
        q, k = rotate(self.query_norm(q), rotation), rotate(self.key_norm(k), rotation)
        values = v
        if first_values is not None and self.value_mix is not None:
            values = torch.lerp(v, first_values, self.value_mix.to(v.dtype))
        mixed = attend(q, k, values, bias)
        tokens = torch.addcmul(tokens, gate_a, self.attention_out(mixed).to(tokens.dtype))
        hidden = F.silu(self.mlp_in(modulate(tokens, shift_m, scale_m)))
        tokens = torch.addcmul(tokens, gate_m, self.mlp_out(hidden).to(tokens.dtype))
        return tokens, v if first_values is None else first_values


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalised tokens (B, N, D), scaled by 1 + scale and shifted, both (B, 1, D)."""
    return torch.addcmul(shift, F.layer_norm(tokens, tokens.shape[-1:]), 1 + scale)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of (B, N, h, d) in the values' precision, heads joined again: (B, N, h d).

    Written out on a CPU: for the few tokens trained there, the fused kernel's backward takes five times as
    long (measured, B = 32, N = 40).
    """
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    if v.device.type == "cpu" and q.shape[2] <= FEW_TOKENS:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        mixed = torch.softmax(scores.float() + bias, dim=-1).to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(v.dtype))
    return rearrange(mixed, "b h n d -> b n (h d)")


def time_features(t: Tensor, width: int, highest: float = 100.0) -> Tensor:
    """Sines and cosines of t (B,) at frequencies 1 to `highest`, (B, width); low, for tame slopes in t."""
    frequencies = torch.exp(torch.linspace(0, math.log(highest), width // 2, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotations(length: int, height: int, width: int, features: int, device: torch.device) -> Tensor:
    """How far each pair of features turns at each token: unit complex, (L + height width, features / 2).

    A quarter of the pairs turns with the row, a quarter with the column; the others, and the text, stay.
    """
    turning = features // 8
    angles = torch.zeros(length + height * width, features // 2, device=device)
    speeds = torch.pi * torch.exp2(-torch.arange(turning, device=device))
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    angles[length:, :turning] = rows.repeat_interleave(width)[:, None] * speeds
    angles[length:, turning : 2 * turning] = columns.repeat(height)[:, None] * speeds
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding (Su 2021): x (B, N, h, d), as d / 2 complex numbers, times (N, d / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation[:, None]).flatten(-2)


def masked_mean(words: Tensor, mask: Tensor) -> Tensor:
    """The mean of (B, L, D) over the tokens that are there, (B, D)."""
    weights = mask.to(words.dtype)[..., None]
    return (words * weights).sum(1) / weights.sum(1).clamp(min=1)


def attention_bias(text: Tensor, image_tokens: int) -> Tensor:
    """0 where a token may be looked at, -inf elsewhere: (B, 1, 1, L + image_tokens), from the mask (B, L)."""
    seen = F.pad(text, (0, image_tokens), value=True)
    return torch.zeros(seen.shape, device=text.device).masked_fill(~seen, -torch.inf)[:, None, None, :]
