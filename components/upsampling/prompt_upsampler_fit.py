"""Fits a small prompt upsampler on the captions of records, where no pretrained language model is at hand.

From any part of what a record is captioned with it makes the long caption, by edits (prompt_edits.py); the
parts are drawn anew each time a record is seen (partial_texts.py). So it learns to add what is not said.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.captioning.packing import IGNORED
from components.corpus.labelled import draw_batches
from components.errors import InputError
from components.randomness import derive_seed, seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import train
from components.training.loss import Batch, LossContext, Losses
from components.upsampling.edit_tokens import EditTokens, train_edit_tokenizer
from components.upsampling.language_model import LanguageModel, without_kernel_advice
from components.upsampling.partial_texts import RecordCaptions, draw_edits
from components.upsampling.prompt_editor import PromptEditor
from components.upsampling.prompt_edits import Edits
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig

WINDOW = 16  # batches
Row = tuple[list[int], list[int]]  # tokens and labels


def fit_prompt_editor(
    records: Sequence[RecordCaptions],
    config: PromptUpsamplerConfig,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> PromptEditor:
    """Train on the captions of `records`. The result depends on the arguments alone.

    Raises InputError where there is no record.
    """
    if not records:
        raise InputError(
            "no record has a long caption, so no upsampler can be fitted; set train.upsampler.model=none"
        )
    # Lower case too, as the words of a prompt are encoded.
    texts = (text for record in records for text in (record.long, record.long.lower()))
    tokens = EditTokens(train_edit_tokenizer(texts, config.vocabulary))
    trained = train(
        _untrained(tokens, config, seed),
        answer_loss,
        lambda seen: _batches(records, tokens, config, seen, seed),
        config.training,
        seed=seed,
        purpose="upsampler",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    return PromptEditor(LanguageModel(trained.ema.cpu(), tokens.tokenizer))


def edits_at(record: RecordCaptions, seed: int, epoch: int) -> Edits:
    """The prompt and its edits that the record is learned from in this epoch."""
    return draw_edits(record, np.random.default_rng(derive_seed(seed, "prompt", record.key, epoch)))


def answer_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Cross entropy of the answers' tokens."""
    del context  # no noise in it
    labels = batch["labels"][:, 1:]
    is_target = labels != IGNORED
    network: Any = model
    features = network.model(input_ids=batch["tokens"][:, :-1], use_cache=False).last_hidden_state
    logits = network.lm_head(features[is_target])  # of two tokens in three nothing is asked
    return Losses(F.cross_entropy(logits.float(), labels[is_target]))


def _batches(
    records: Sequence[RecordCaptions], tokens: EditTokens, config: PromptUpsamplerConfig, seen: int, seed: int
) -> Iterator[Batch]:
    """Batches from the one at `seen` captions on.

    Sequences of like length share a batch, among WINDOW batches at a time, so that little is padded.
    """
    size = config.training.batch_size
    skipped = seen // size % WINDOW
    first = seen // size - skipped
    order = draw_batches(len(records), size, first * size, seed=seed)
    for window in count(first, WINDOW):
        epoch = window * size // len(records)
        chosen = [row for batch in islice(order, WINDOW) for row in batch]
        rows = sorted((tokens.sequence(edits_at(records[row], seed, epoch)) for row in chosen), key=_length)
        places = np.random.default_rng(derive_seed(seed, "window", window)).permutation(WINDOW).tolist()
        for place in places[skipped:]:
            yield _collate(rows[place * size : (place + 1) * size])
        skipped = 0


def _length(row: Row) -> int:
    return len(row[0])


def _collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Padded on the right, where nothing before it attends to."""
    length = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (ids, targets) in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.tensor(targets)
    return {"tokens": tokens, "labels": labels}


def _untrained(tokens: EditTokens, config: PromptUpsamplerConfig, seed: int) -> nn.Module:
    """LFM2's blocks: short convolutions, which see the words next to each other, and attention in turn."""
    from transformers import GenerationConfig, Lfm2Config, Lfm2ForCausalLM

    settings = Lfm2Config(
        vocab_size=len(tokens),
        hidden_size=config.width,
        intermediate_size=2 * config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        layer_types=[("conv", "full_attention")[layer % 2] for layer in range(config.depth)],
        block_auto_adjust_ff_dim=False,
        max_position_embeddings=1024,
        pad_token_id=tokens.pad,
        bos_token_id=None,
        eos_token_id=tokens.end,
        tie_word_embeddings=True,
    )
    without_kernel_advice()
    with seeded_weights(seed, "upsampler weights"):
        model = Lfm2ForCausalLM(settings)
    model.generation_config = GenerationConfig(
        eos_token_id=tokens.end, pad_token_id=tokens.pad, do_sample=False
    )
    model.set_attn_implementation("eager")  # the fused kernel's backward is slow on a CPU
    return model
