"""Decoding with the language model of prompt_upsampler_fit.py: rows that come, go on and leave one by one.

transformers' own cache holds rows that began together and go on by one token each. Here each row is at a
place of its own, and goes on by as many tokens as are known of it. The tokens of all chunks stand one after
another in one list, so that nothing is computed for padding; only attention pads a row's queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FIRST_ROWS, FIRST_PLACES = 16, 128  # that a cache has room for before it grows


@dataclass(frozen=True)
class _Pass:
    """Where the T tokens of a forward pass are, which goes on by chunks of B rows, the longest of C tokens.

    rows: in the caches. numbers, places (T,): each token's row and its place there; end: beyond the last
    place. chunk, inside (T,): each token's chunk and its place in that. cosine, sine (T, 1, 1, D): of the
    rotary embedding. attended (B, 1, C, end): by each query; what pads them attends to something, too.
    """

    rows: slice
    numbers: Tensor
    places: Tensor
    end: int
    chunk: Tensor
    inside: Tensor
    cosine: Tensor
    sine: Tensor
    attended: Tensor


class Lfm2Decoder:
    """The rows that are being decoded, numbered from 0, with what each layer keeps of their tokens.

    model: an Lfm2ForCausalLM without biases, with as many heads of keys as of queries. Its weights are used
    as they are now.
    """

    def __init__(self, model: Any) -> None:
        self._core, self._head = model.model, model.lm_head.weight
        self._lengths: list[int] = []
        self._cosine = self._sine = self._head.new_zeros(0, 1, 1, 1)
        with torch.inference_mode():
            self._layers = [_Layer(layer) for layer in self._core.layers]

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def scores(self, chunks: Sequence[Sequence[int]], first: int = 0) -> Tensor:
        """The scores (B, V) of the token after each chunk.

        chunks: one token or more for each row from `first` on; those beyond the last row begin new ones.
        """
        lengths = (self._lengths[first:] + [0] * len(chunks))[: len(chunks)]
        sizes = [len(chunk) for chunk in chunks]
        ids = torch.tensor([token for chunk in chunks for token in chunk], device=self._head.device)
        at = self._pass(first, lengths, sizes)
        features = F.embedding(ids, self._core.embed_tokens.weight)
        for layer in self._layers:
            features = layer(features, at)
        self._lengths[first : first + len(chunks)] = map(add, lengths, sizes)
        last = features[torch.tensor(sizes, device=ids.device).cumsum(0) - 1]
        return F.linear(_normed(last, self._core.embedding_norm), self._head)

    @torch.inference_mode()
    def remove(self, row: int) -> None:
        """Take out a row; the last one gets its number."""
        last = len(self) - 1
        for layer in self._layers:
            for cache in layer.caches:
                cache[row] = cache[last]
        self._lengths[row] = self._lengths[last]
        self._lengths.pop()

    def _pass(self, first: int, lengths: list[int], sizes: list[int]) -> _Pass:
        device = self._head.device
        rows, width = slice(first, first + len(lengths)), max(sizes)
        chunk, inside = torch.tensor(
            [(number, place) for number, size in enumerate(sizes) for place in range(size)], device=device
        ).unbind(1)
        before = torch.tensor(lengths, device=device)
        places, end = before[chunk] + inside, max(map(add, lengths, sizes))
        cosine, sine = self._rotations(end)
        until = before[:, None] + torch.arange(width, device=device)
        return _Pass(
            rows,
            chunk + first,
            places,
            end,
            chunk,
            inside,
            cosine[places],
            sine[places],
            torch.arange(end, device=device) <= until[:, None, :, None],
        )

    def _rotations(self, end: int) -> tuple[Tensor, Tensor]:
        """Of the first `end` places or more, (places, 1, 1, D) each; kept, as every pass takes from them."""
        if end > len(self._cosine):
            places = torch.arange(2 * end, device=self._head.device)[None]
            cosine, sine = self._core.rotary_emb(self._head, places)
            self._cosine, self._sine = cosine[0, :, None, None], sine[0, :, None, None]
        return self._cosine, self._sine


class _Layer:
    """A layer of the model, with few calls: on a CPU each costs as much as its arithmetic."""

    def __init__(self, layer: Any) -> None:
        self.operator_norm, self.ffn_norm = layer.operator_norm, layer.ffn_norm
        self.operator = _Attention(layer.self_attn) if layer.is_attention_layer else _Convolution(layer.conv)
        ffn = layer.feed_forward
        self.ffn_in, self.ffn_out = torch.cat([ffn.w1.weight, ffn.w3.weight]), ffn.w2.weight

    @property
    def caches(self) -> list[Tensor]:
        return self.operator.caches

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        features = features + self.operator(_normed(features, self.operator_norm), at)
        gate, value = F.linear(_normed(features, self.ffn_norm), self.ffn_in).chunk(2, -1)
        return features + F.linear(F.silu(gate) * value, self.ffn_out)


class _Convolution:
    """A gated short convolution. caches: its inputs, behind as many zeros as it looks back."""

    def __init__(self, module: Any) -> None:
        self.into, self.out = module.in_proj.weight, module.out_proj.weight
        self.kernel = module.conv.weight[:, 0].T.contiguous()  # (K, W)
        self.offsets = torch.arange(len(self.kernel), device=self.kernel.device)
        self.caches = [self.kernel.new_zeros(0, 0, self.kernel.shape[1])]

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        before, after, value = F.linear(features, self.into).chunk(3, -1)
        back = len(self.kernel) - 1
        self.caches = [_with_room(cache, at.rows.stop, at.end + back) for cache in self.caches]
        (inputs,) = self.caches
        inputs[at.numbers, at.places + back] = before * value
        window = inputs[at.numbers[:, None], at.places[:, None] + self.offsets]  # (T, K, W)
        return F.linear(after * (window * self.kernel).sum(1), self.out)


class _Attention:
    """Attention. caches: keys and values, (rows, places, heads, D)."""

    def __init__(self, module: Any) -> None:
        self.into = torch.cat([module.q_proj.weight, module.k_proj.weight, module.v_proj.weight])
        self.out, self.size = module.out_proj.weight, module.head_dim
        self.norm = torch.stack([module.q_layernorm.weight, module.k_layernorm.weight])[:, None]  # (2, 1, D)
        self.eps = module.q_layernorm.variance_epsilon
        heads = len(module.k_proj.weight) // self.size
        self.caches = [self.into.new_zeros(0, 0, heads, self.size) for _ in range(2)]

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        heads = F.linear(features, self.into).unflatten(-1, (3, -1, self.size))  # (T, 3, H, D)
        both = _rotated(F.rms_norm(heads[:, :2], (self.size,), eps=self.eps) * self.norm, at)
        key, value = both[:, 1], heads[:, 2]
        query = both.new_zeros(*at.attended.shape[::2], *key.shape[1:])  # (B, C, H, D)
        query[at.chunk, at.inside] = both[:, 0]
        self.caches = [_with_room(cache, at.rows.stop, at.end) for cache in self.caches]
        for cache, new in zip(self.caches, (key, value), strict=True):
            cache[at.numbers, at.places] = new
        keys, values = (cache[at.rows, : at.end].transpose(1, 2) for cache in self.caches)
        found = F.scaled_dot_product_attention(query.transpose(1, 2), keys, values, attn_mask=at.attended)
        return F.linear(found.transpose(1, 2)[at.chunk, at.inside].flatten(1), self.out)


def _normed(features: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(features, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotated(heads: Tensor, at: _Pass) -> Tensor:
    """heads (T, 2, H, D) turned by their places (Su 2021, RoFormer)."""
    first, second = heads.chunk(2, -1)
    return heads * at.cosine + torch.cat([-second, first], -1) * at.sine


def _with_room(cache: Tensor, rows: int, places: int) -> Tensor:
    """The cache, or a larger one with the same contents."""
    if rows <= cache.shape[0] and places <= cache.shape[1]:
        return cache
    room = (
        max(FIRST_ROWS, 2 * cache.shape[0] if rows > cache.shape[0] else cache.shape[0], rows),
        max(FIRST_PLACES, 2 * cache.shape[1] if places > cache.shape[1] else cache.shape[1], places),
    )
    larger = cache.new_zeros(*room, *cache.shape[2:])
    larger[: cache.shape[0], : cache.shape[1]] = cache
    return larger
