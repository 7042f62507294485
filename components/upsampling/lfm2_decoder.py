"""Decoding with the language model of prompt_upsampler_fit.py: rows that come, go on and leave one by one.

transformers' own cache holds rows that began together and go on by one token each. Here each row is at a
place of its own, and goes on by as many tokens as are known of it. The tokens of all chunks stand one after
another in one list, so that nothing is computed for padding; only attention pads a row's queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    rotary embedding. bias (B, 1, C, end): 0 where a query attends, else -inf; what pads the queries, too.
    """

    rows: slice
    numbers: Tensor
    places: Tensor
    end: int
    chunk: Tensor
    inside: Tensor
    cosine: Tensor
    sine: Tensor
    bias: Tensor


class Lfm2Decoder:
    """The rows that are being decoded, numbered from 0, with what each layer keeps of their tokens.

    model: an Lfm2ForCausalLM without biases, with as many heads of keys as of queries. Its weights are used
    as they are now.
    """

    def __init__(self, model: Any) -> None:
        self._core, self._head = model.model, model.lm_head.weight
        self._lengths: list[int] = []
        with torch.inference_mode():
            norm = self._core.embedding_norm
            self._answers, self._eps = self._head * norm.weight, _eps_of(norm)
            self._layers = [_Layer(layer) for layer in self._core.layers]
            self._tabulate(FIRST_PLACES)

    def __len__(self) -> int:
        return len(self._lengths)

    @torch.inference_mode()
    def scores(
        self,
        chunks: Sequence[Sequence[int]],
        first: int = 0,
        ends: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """The scores (N, V) of the token after each end of each chunk, in order.

        chunks: one token or more for each row from `first` on; those beyond the last row begin new ones.
        ends: of each chunk, how many of its tokens stand before what is scored; by default all of them.
        """
        lengths = (self._lengths[first:] + [0] * len(chunks))[: len(chunks)]
        sizes = [len(chunk) for chunk in chunks]
        ids = torch.tensor([token for chunk in chunks for token in chunk], device=self._head.device)
        at = self._pass(first, lengths, sizes)
        features = F.embedding(ids, self._core.embed_tokens.weight)
        for layer in self._layers:
            features = layer(features, at)
        self._lengths[first : first + len(chunks)] = map(add, lengths, sizes)
        begins = accumulate(sizes, initial=-1)  # the place of the token before each chunk
        scored = [
            begin + end
            for begin, of_chunk in zip(begins, ends or [[n] for n in sizes], strict=False)
            for end in of_chunk
        ]
        features = features[torch.tensor(scored, device=ids.device)]
        return F.linear(_normed(features, self._eps), self._answers)

    def retract(self, row: int, tokens: int) -> None:
        """Forget the last tokens of a row."""
        self._lengths[row] -= tokens

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
        device, width = self._head.device, max(sizes)
        end = max(map(add, lengths, sizes))
        tokens = [(chunk, place) for chunk, size in enumerate(sizes) for place in range(size)]
        where = [(first + chunk, lengths[chunk] + place, chunk, place) for chunk, place in tokens]
        numbers, places, chunk, inside = torch.tensor(where, device=device).unbind(1)
        queries = torch.tensor([range(before, before + width) for before in lengths], device=device)
        if end + width > len(self._bias):
            self._tabulate(2 * (end + width))
        cosine, sine = self._rotations[places].unbind(1)
        bias = self._bias[queries, :end].unsqueeze(1)
        rows = slice(first, first + len(lengths))
        return _Pass(rows, numbers, places, end, chunk, inside, cosine, sine, bias)

    def _tabulate(self, places: int) -> None:
        """The rotation of each of so many places, (places, 2, 1, 1, D), and what it attends to."""
        numbers = torch.arange(places, device=self._head.device)
        cosine, sine = self._core.rotary_emb(self._head, numbers[None])  # (1, places, D)
        first, second = sine.chunk(2, -1)  # a half's sign is that of what is turned into it
        rotations = torch.stack([cosine[0], torch.cat([-first, second], -1)[0]], 1)
        self._rotations = rotations[:, :, None, None]
        is_attended = numbers <= numbers[:, None]
        self._bias = torch.zeros_like(self._head[:1, :1]).where(is_attended, -torch.inf)


class _Layer:
    """A layer of the model, with few calls: on a CPU each costs as much as its arithmetic.

    The weights of its norms are in the projections behind them.
    """

    def __init__(self, layer: Any) -> None:
        norm, ffn = layer.operator_norm, layer.feed_forward
        self.operator = (
            _Attention(layer.self_attn, norm) if layer.is_attention_layer else _Convolution(layer.conv, norm)
        )
        self.eps, self.ffn_eps = _eps_of(norm), _eps_of(layer.ffn_norm)
        self.ffn_in = torch.cat([ffn.w1.weight, ffn.w3.weight]) * layer.ffn_norm.weight
        self.ffn_out = ffn.w2.weight

    @property
    def caches(self) -> list[Tensor]:
        return self.operator.caches

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        features = features + self.operator(_normed(features, self.eps), at)
        gate, value = F.linear(_normed(features, self.ffn_eps), self.ffn_in).chunk(2, -1)
        return features + F.linear(F.silu(gate) * value, self.ffn_out)


class _Convolution:
    """A gated short convolution. caches: its inputs, behind as many zeros as it looks back."""

    def __init__(self, module: Any, norm: Any) -> None:
        self.into, self.out = module.in_proj.weight * norm.weight, module.out_proj.weight
        self.kernel = module.conv.weight[:, 0].T.contiguous()  # (K, W)
        self.offsets = torch.arange(len(self.kernel), device=self.kernel.device)
        self.caches = [self.kernel.new_zeros(0, 0, self.kernel.shape[1])]

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        before, after, value = F.linear(features, self.into).chunk(3, -1)
        back = len(self.kernel) - 1
        self.caches = [_with_room(cache, at.rows.stop, at.end + back, 1) for cache in self.caches]
        (inputs,) = self.caches
        inputs[at.numbers, at.places + back] = before * value
        window = inputs[at.numbers[:, None], at.places[:, None] + self.offsets]  # (T, K, W)
        return F.linear(after * (window * self.kernel).sum(1), self.out)


class _Attention:
    """Attention, written out: the fused kernel takes three times as long for the few queries of a row.

    caches: keys and values, (rows, heads, places, D).
    """

    def __init__(self, module: Any, norm: Any) -> None:
        self.into = (
            torch.cat([module.q_proj.weight, module.k_proj.weight, module.v_proj.weight]) * norm.weight
        )
        self.out, self.size = module.out_proj.weight, module.head_dim
        scales = torch.stack([module.q_layernorm.weight * self.size**-0.5, module.k_layernorm.weight])
        self.scales = scales[:, None]  # (2, 1, D)
        self.eps = _eps_of(module.q_layernorm)
        heads = len(module.k_proj.weight) // self.size
        self.caches = [self.into.new_zeros(0, heads, 0, self.size) for _ in range(2)]

    def __call__(self, features: Tensor, at: _Pass) -> Tensor:
        heads = F.linear(features, self.into).unflatten(-1, (3, -1, self.size))  # (T, 3, H, D)
        query, key = _rotated(_normed(heads[:, :2], self.eps) * self.scales, at).unbind(1)
        queries = query.new_zeros(at.rows.stop - at.rows.start, at.bias.shape[2], *query.shape[1:])
        queries[at.chunk, at.inside] = query  # (B, C, H, D)
        self.caches = [_with_room(cache, at.rows.stop, at.end, 2) for cache in self.caches]
        for cache, new in zip(self.caches, (key, heads[:, 2]), strict=True):
            cache[at.numbers, :, at.places] = new
        keys, values = (cache[at.rows, :, : at.end] for cache in self.caches)
        scores = queries.transpose(1, 2) @ keys.transpose(2, 3) + at.bias
        found = torch.softmax(scores, -1) @ values  # (B, H, C, D)
        return F.linear(found.transpose(1, 2)[at.chunk, at.inside].flatten(1), self.out)


def _eps_of(norm: Any) -> Tensor:
    """As a tensor, which is made once."""
    return norm.weight.new_tensor(norm.variance_epsilon)


def _normed(features: Tensor, eps: Tensor) -> Tensor:
    """Divided by their root mean square (RMSNorm, Zhang 2019), without its weights."""
    norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    mean = torch.addcmul(eps, norm, norm, value=1 / features.shape[-1])
    return features * mean.rsqrt_()


def _rotated(heads: Tensor, at: _Pass) -> Tensor:
    """heads (T, 2, H, D) turned by their places (Su 2021, RoFormer)."""
    halves = heads.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return torch.addcmul(heads * at.cosine, halves, at.sine)


def _with_room(cache: Tensor, rows: int, places: int, dim: int) -> Tensor:
    """The cache, or a larger one with the same contents. dim: that of the places."""
    had = cache.shape[0], cache.shape[dim]
    if rows <= had[0] and places <= had[1]:
        return cache
    shape = list(cache.shape)
    shape[0] = max(FIRST_ROWS, 2 * had[0] if rows > had[0] else had[0], rows)
    shape[dim] = max(FIRST_PLACES, 2 * had[1] if places > had[1] else had[1], places)
    larger = cache.new_zeros(shape)
    larger[: had[0]].narrow(dim, 0, had[1]).copy_(cache)
    return larger
