"""Byte-level BPE vocabularies: the one place where this project trains a tokenizer.

Used for the DiT's learned text encoder, the judge, the captioner and the prompt upsampler. Byte-level (GPT-2,
Radford 2019): every text can be encoded, so there is no unknown token.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer


def train_bpe(
    texts: Iterable[str],
    vocabulary: int,
    *,
    special_tokens: Sequence[str],
    prefix_space: bool,
    normalizer: "Normalizer | None" = None,
) -> "Tokenizer":
    """Learn the merges from `texts`; the same texts in the same order give the same tokenizer, to the byte.

    vocabulary: tokens at most, the special ones and the 256 bytes included. special_tokens: get the ids from
    0 on, in this order, and are never split. prefix_space: encode a text's first word like its other words.
    normalizer: applied to every text before it is split; None leaves texts as they are.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
