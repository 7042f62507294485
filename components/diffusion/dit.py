"""A text-conditioned diffusion transformer: text and image tokens in one stream.

`DiT(x_t, t, text)` is a denoiser's network: what its output means (x_0, velocity or eps) is the Denoiser's
business. Blocks are adaLN-zero (Peebles 2023) with QK-norm and the pooled text beside the time (SD3, Esser
2024); positions are learned embeddings, and rotate a part of each head's features (RoPE, Su 2021).

Under autocast tokens, norms' statistics and the softmax stay in float32; in float64 everything is (the tests'
oracles). All operations have forward-mode derivatives but the fused kernels of attention (mean_flow.py).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from components.conditioning.text import TextTokens
from components.conditioning.token_mixing import TokenEmbedding
from components.diffusion.config import DiTConfig
from components.diffusion.positions import in_single, rotate, rotations, stretched
from components.errors import InputError

POSITION_SCALE = 0.5  # spread of the position embeddings beside tokens and patches of about 1
FEW_TOKENS = 256  # up to which attention is written out on a CPU


class DiT(nn.Module):
    """DiT(x_t, t, text): (B, C, H, W), (B,), TextTokens of B captions -> the prediction, (B, C, H, W).

    H and W are any multiples of the patch: positions are in the frame of the config's square (positions.py).
    With a second time in the config, DiT(x_t, t, text, r) is told where the path is followed to, r (B,), by
    default to the data, r = 0. An untrained second time changes nothing, whatever r is.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if (config.vocabulary > 0) == (config.text_features > 0):
            raise InputError("set either vocabulary (learned text) or text_features (frozen text)")
        self.config = config
        width, pixels = config.width, config.channels * config.patch**2
        self.text_in = (
            TokenEmbedding(config.vocabulary, width)
            if config.vocabulary
            else nn.Linear(config.text_features, width)
        )
        self.image_in = nn.Linear(pixels, width)
        patches = (config.image_size // config.patch) ** 2
        self.image_positions = nn.Parameter(POSITION_SCALE * torch.randn(patches, width))
        self.text_positions = nn.Parameter(POSITION_SCALE * torch.randn(config.text_length, width))
        self.pooled_in = nn.Linear(width, width, bias=False)
        self.time_in = time_embedding(width)
        self.blocks = nn.ModuleList(Block(config, first=depth == 0) for depth in range(config.depth))
        self.modulation = nn.Linear(width, 8 * width)
        self.out = nn.Linear(width, pixels)
        self.second_time_in = time_embedding(width) if config.second_time else None
        self.activation_checkpointing = False  # see checkpoint_activations
        self._initialise()

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens, r: Tensor | None = None) -> Tensor:
        patch = self.config.patch
        height, width = x_t.shape[-2] // patch, x_t.shape[-1] // patch
        image = self.image_in(rearrange(x_t, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch))
        image = image + stretched(self.image_positions, height, width)
        embedded = (text.values, text.mask) if self.config.vocabulary else (text.values,)
        text_tokens = self.text_in(*embedded)
        pooled = self.pooled_in(masked_mean(text_tokens, text.mask))
        time = self.time_in(time_features(t, self.config.width))
        if self.second_time_in is not None:  # as t - r, the best of Geng 2025, Table 1c
            time = time + self.second_time_in(time_features(t if r is None else t - r, self.config.width))
        condition = F.silu(time + pooled)
        text_tokens = text_tokens + self.text_positions[: text_tokens.shape[1]]
        shared = self.modulation(condition).unflatten(-1, (8, -1))  # (B, 8, D): 6 for blocks, 2 at the end
        tokens = in_single(torch.cat([text_tokens, image], dim=1))  # (B, L + h w, D)
        bias = attention_bias(text.mask, height * width)
        length, head_dims = text_tokens.shape[1], self.config.width // self.config.heads
        side = self.config.image_size // patch
        rotation = rotations(length, height, width, side, head_dims, x_t.device)
        first_values: Tensor | None = None
        for block in self.blocks:
            unread = length if block is self.blocks[-1] else 0
            inputs = (tokens, shared[:, :6], rotation, bias, first_values, unread)
            if self.activation_checkpointing and torch.is_grad_enabled():
                tokens, first_values = checkpoint(
                    block, *inputs, use_reentrant=False, preserve_rng_state=False
                )
            else:
                tokens, first_values = block(*inputs)
        shift, scale = shared[:, 6:, None].unbind(1)
        pixels = self.out(modulate(tokens, shift, scale))
        return in_single(rearrange(pixels, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=patch, q=patch))

    def checkpoint_activations(self) -> None:
        """From now on keep only each block's input for the backward pass, which computes the rest again."""
        self.activation_checkpointing = True

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias) if module.bias is not None else None
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.out.weight)
        if self.second_time_in is not None:
            for parameter in self.second_time_in[-1].parameters():
                nn.init.zeros_(parameter)


class Block(nn.Module):
    """Attention and MLP on all tokens, both scaled, shifted and gated by the time.

    Shifts, scales and gates come from one projection for all blocks plus this block's own table (adaLN-
    single, Chen 2023), which starts at zero: every block starts as the identity (adaLN-zero, Peebles 2023).
    """

    def __init__(self, config: DiTConfig, *, first: bool) -> None:
        super().__init__()
        width, inner = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.modulation = nn.Parameter(torch.zeros(6, width))
        # Value residual (Zhou 2024): how much of the first block's values, which itself has none to mix in.
        # Of one dimension, along which it can be shared out (sharding.py).
        self.value_mix = None if first else nn.Parameter(torch.tensor([0.5]))
        self.register_load_state_dict_pre_hook(_take_number)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.LayerNorm(width // config.heads, bias=False)  # QK-norm (Dehghani 2023)
        self.key_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, inner, bias=False)
        self.mlp_out = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        rotation: Tensor,
        bias: Tensor,
        first_values: Tensor | None,
        unread: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) -> (B, N - unread, D), and the values (B, N, h, d) that later blocks mix in.

        unread: the first tokens, which nothing reads after this block: they are attended to, and that is all.
        """
        modulation = (condition + self.modulation)[:, :, None]  # (B, 6, 1, D)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.unbind(1)
        qkv = self.qkv(modulate(tokens, shift_a, scale_a))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b n h d", three=3, h=self.heads)
        tokens = tokens[:, unread:]
        q, k = rotate(self.query_norm(q[:, unread:]), rotation[unread:]), rotate(self.key_norm(k), rotation)
        values = v
        if first_values is not None and self.value_mix is not None:
            values = torch.lerp(v, first_values, self.value_mix.to(v.dtype))
        mixed = attend(q, k, values, bias)
        tokens = torch.addcmul(tokens, gate_a, self.attention_out(mixed).to(tokens.dtype))
        hidden = F.silu(self.mlp_in(modulate(tokens, shift_m, scale_m)))
        tokens = torch.addcmul(tokens, gate_m, self.mlp_out(hidden).to(tokens.dtype))
        return tokens, v if first_values is None else first_values


def _take_number(_: nn.Module, state: dict[str, Tensor], prefix: str, *__: object) -> None:
    """Load a block of earlier models, whose value_mix has no dimension."""
    if (mix := state.get(prefix + "value_mix")) is not None:
        state[prefix + "value_mix"] = mix.reshape(1)


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
        mixed = torch.softmax(in_single(scores) + bias, dim=-1).to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(v.dtype))
    return rearrange(mixed, "b h n d -> b n (h d)")


def time_embedding(width: int) -> nn.Sequential:
    """From time_features (B, width) to what is added up in a block's condition, (B, width)."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def time_features(t: Tensor, width: int, highest: float = 100.0) -> Tensor:
    """Sines and cosines of t (B,) at frequencies 1 to `highest`, (B, width); low, for tame slopes in t."""
    frequencies = torch.exp(torch.linspace(0, math.log(highest), width // 2, device=t.device))
    angles = in_single(t)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of (B, L, D) over the tokens whose mask (B, L) is True, (B, D)."""
    weights = mask.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def attention_bias(text_mask: Tensor, image_tokens: int) -> Tensor:
    """0 where a token may be attended to, -inf elsewhere, (B, 1, 1, L + image_tokens). text_mask: (B, L)."""
    mask = F.pad(text_mask, (0, image_tokens), value=True)
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)[:, None, None, :]
