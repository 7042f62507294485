"""A judge's features of a few short texts, without reading the padding behind them.

A text tower of CLIP's kind is causal and takes the features of the end token, so what stands behind it
changes nothing, and most of a context is padding: a text of a dozen tokens in a context of 48. Features are
those of `Judge.text_features` but for rounding. The upsampler's check asks for them, text by text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.judge.judge import Features, Judge

MOST_KNOWN = 10_000  # texts whose features are kept: some 10 MB at most


class ShortTexts:
    """A judge's features of texts, each computed once while it is among the last that were asked for."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._known: dict[str, Features] = {}

    def features(self, texts: Sequence[str]) -> Features:
        """Unit vectors (N, D)."""
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for at in range(0, len(new), self.judge.batch_size):
            batch = new[at : at + self.judge.batch_size]
            self._known.update(zip(batch, unpadded_features(self.judge, batch), strict=True))
        return np.stack([self._known[text] for text in texts])


def unpadded_features(judge: Judge, texts: Sequence[str]) -> Features:
    """Unit vectors of texts (N, D), one batch; by `Judge.text_features` where the text tower is another."""
    if not _is_causal(judge.model):
        return judge.text_features(texts)
    with torch.inference_mode():
        tokens = judge.tokenizer(list(texts)).to(judge.device)
        is_end = tokens == judge.model.text_eos_id
        ends = (is_end.int() if judge.model.text_pool_type == "eos" else tokens).argmax(-1)
        return _encoded(judge.model, tokens[:, : int(ends.max()) + 1], ends).float().cpu().numpy()


def _is_causal(model: Any) -> bool:
    """Whether a text's features depend on nothing behind its end token."""
    from open_clip.model import CLIP

    return type(model) is CLIP and model.attn_mask is not None and model.text_pool_type in ("argmax", "eos")


def _encoded(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    """As open_clip's CLIP.encode_text, of its first tokens."""
    length, dtype = tokens.shape[1], model.transformer.get_cast_dtype()
    features = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    features = model.transformer(features, attn_mask=model.attn_mask[:length, :length])
    features = model.ln_final(features[torch.arange(len(ends), device=ends.device), ends])
    projection = model.text_projection
    if isinstance(projection, torch.nn.Linear):
        features = projection(features)
    elif projection is not None:
        features = features @ projection
    return F.normalize(features, dim=-1)
