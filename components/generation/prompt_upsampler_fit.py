"""Fits a small prompt upsampler on the captions of records, where no pretrained language model is at hand.

From any part of what a record is captioned with it writes the long caption; the parts are drawn anew each
time a record is seen (partial_texts.py). So it learns to add what is not said and to keep what is.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.captioning.architecture import END, PAD, train_tokenizer
from components.captioning.packing import IGNORED
from components.corpus.labelled import draw_batches
from components.errors import InputError
from components.generation.partial_texts import RecordCaptions, draw_prompt
from components.generation.prompt_upsampler_config import PromptUpsamplerConfig
from components.generation.prompt_writer import PromptWriter, plain_prompt
from components.randomness import derive_seed, seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import train
from components.training.loss import Batch, LossContext, Losses

Row = tuple[list[int], list[int]]  # tokens of the prompt and of the answer


def fit_prompt_writer(
    records: Sequence[RecordCaptions],
    config: PromptUpsamplerConfig,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> PromptWriter:
    """Train on the captions of `records`. The result depends on the arguments alone.

    Raises InputError where there is no record.
    """
    if not records:
        raise InputError(
            "no record has a long caption, so no upsampler can be fitted; set train.upsampler.model=none"
        )
    texts = (text for record in records for text in (prompt_of(record, seed, 0), record.long))
    tokenizer = train_tokenizer(texts, config.vocabulary)
    trained = train(
        _untrained(tokenizer, config, seed),
        answer_loss,
        lambda seen: _batches(records, tokenizer, config, seen, seed),
        config.training,
        seed=seed,
        purpose="upsampler",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    return PromptWriter(trained.ema.cpu(), tokenizer)


def prompt_of(record: RecordCaptions, seed: int, epoch: int) -> str:
    """The prompt that the record is learned from in this epoch."""
    return draw_prompt(record, np.random.default_rng(derive_seed(seed, "prompt", record.key, epoch)))


def answer_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Cross entropy of the answers' tokens."""
    del context  # no noise in it
    logits = model(input_ids=batch["tokens"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    is_target = labels != IGNORED
    return Losses(F.cross_entropy(logits[is_target].float(), labels[is_target]))


def _batches(
    records: Sequence[RecordCaptions], tokenizer: Any, config: PromptUpsamplerConfig, seen: int, seed: int
) -> Iterator[Batch]:
    """Batches from the one at `seen` captions on. The epoch of a batch is that of its first caption."""
    size = config.training.batch_size
    lengths = [len(record.long) for record in records]
    order = draw_batches(len(records), size, seen, seed=seed, lengths=lengths)
    for batch, chosen in enumerate(order, start=seen // size):
        epoch = batch * size // len(records)
        prompts = [plain_prompt(prompt_of(records[row], seed, epoch)) for row in chosen]
        answers = [f"{records[row].long}{tokenizer.eos_token}" for row in chosen]
        yield _collate(list(zip(tokenizer(prompts).input_ids, tokenizer(answers).input_ids, strict=True)))


def _collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Padded on the right, where causal attention from the tokens before does not reach."""
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return {"tokens": tokens, "labels": labels}


def _untrained(tokenizer: Any, config: PromptUpsamplerConfig, seed: int) -> nn.Module:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    pad, end = (tokenizer.convert_tokens_to_ids(token) for token in (PAD, END))
    settings = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=3 * config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        max_position_embeddings=512,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
        tie_word_embeddings=True,
    )
    with seeded_weights(seed, "upsampler weights"):
        model = LlamaForCausalLM(settings)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    model.set_attn_implementation("eager")  # the fused kernel's backward is slow on a CPU
    return model
