"""Fits a small prompt upsampler on pairs of captions, where no pretrained language model is at hand.

From the short caption of an image it writes the long one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.captioning.architecture import END, PAD, train_tokenizer
from components.captioning.config import PromptUpsamplerConfig
from components.captioning.packing import IGNORED
from components.corpus.labelled import draw_batches
from components.errors import InputError
from components.generation.prompt_upsampler import PromptUpsampler, plain_prompt
from components.randomness import seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import train
from components.training.loss import Batch, LossContext, Losses

Row = tuple[list[int], list[int]]  # tokens of the prompt and of the answer


def fit_prompt_upsampler(
    pairs: Sequence[tuple[str, str]],
    config: PromptUpsamplerConfig,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> PromptUpsampler:
    """Train on (short, long) captions. The result depends on the arguments alone.

    Raises InputError where there is no pair.
    """
    if not pairs:
        raise InputError(
            "no record has both a short and a long caption, so no upsampler can be fitted; set"
            " train.upsampler.model=none"
        )
    tokenizer = train_tokenizer((text for pair in pairs for text in pair), config.vocabulary)
    rows = [
        (tokenizer(plain_prompt(short)).input_ids, [*tokenizer(long).input_ids, tokenizer.eos_token_id])
        for short, long in pairs
    ]
    trained = train(
        _untrained(tokenizer, config, seed),
        answer_loss,
        lambda seen: _batches(rows, config, seen, seed),
        config.training,
        seed=seed,
        purpose="upsampler",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    return PromptUpsampler(trained.ema.cpu(), tokenizer)


def answer_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Cross entropy of the answers' tokens."""
    del context  # no noise in it
    logits = model(input_ids=batch["tokens"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    is_target = labels != IGNORED
    return Losses(F.cross_entropy(logits[is_target].float(), labels[is_target]))


def _batches(
    rows: Sequence[Row], config: PromptUpsamplerConfig, images_seen: int, seed: int
) -> Iterator[Batch]:
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    for chosen in draw_batches(
        len(rows), config.training.batch_size, images_seen, seed=seed, lengths=lengths
    ):
        yield _collate([rows[row] for row in chosen])


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
