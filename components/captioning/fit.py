"""Fits a small captioner on a labelled set, where no pretrained one is at hand.

It is trained to answer the short prompt with the short caption and the long prompt with the long one (DALL·E
3, Betker 2023, Section 2.1), after its vision tower has learned alone (word_pairs.py). It is saved so that
it loads as any pretrained image-text-to-text model does.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import logging

from components.captioning.architecture import IMAGE, STRIDE, make_model, make_processor, train_tokenizer
from components.captioning.config import CaptionerFitConfig
from components.captioning.packing import IGNORED, Packed, collate, pack
from components.captioning.word_pairs import CaptionerWithPairs, WordPairs, pair_loss
from components.corpus.labelled import LabelledImage, draw_batches
from components.randomness import seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import Trained, train
from components.training.loss import Batch, LossContext, Losses

PROMPT_WEIGHT = 100  # times the prompts are in the tokenizer's texts, so that each becomes few tokens
PAIRS_WEIGHT = 0.3  # of the tower's own loss beside the captions'
CHUNK = 500  # images that are prepared at once


def fit_captioner(
    labelled: Sequence[LabelledImage],
    folder: Path,
    config: CaptionerFitConfig,
    *,
    prompts: tuple[str, str],
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train on `labelled` and save model and processor into `folder`.

    prompts: the instructions for the short and the long caption. The result depends on the arguments alone.
    """
    logging.disable_progress_bar()  # our own progress is displayed
    texts = [text for image in labelled for text in image.captions]
    tokenizer = train_tokenizer([*prompts * PROMPT_WEIGHT, *texts], config.vocabulary)
    processor = make_processor(tokenizer, config.image_size)
    pairs = WordPairs([[tokenizer(caption).input_ids for caption in image.captions] for image in labelled])
    image_tokens = (config.image_size // STRIDE) ** 2
    with seeded_weights(seed, "captioner weights"):
        captioner = _untrained(tokenizer, config)
        model = CaptionerWithPairs(captioner, config.width, len(pairs.words), image_tokens)
    rows = [_pack(image, tokenizer, config, prompts) for image in labelled]
    pixels = _pixels(labelled, processor)
    trained = train(
        model,
        partial(tower_then_caption_loss, tower_fraction=config.tower_fraction),
        lambda seen: _batches(
            rows, pixels, pairs, tokenizer.pad_token_id, config.training.batch_size, seen, seed
        ),
        config.training,
        seed=seed,
        purpose="captioner",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    averaged: Any = trained.ema
    averaged.captioner.save_pretrained(folder)
    processor.save_pretrained(folder)
    return trained


def tower_then_caption_loss(
    model: nn.Module, batch: Batch, context: LossContext, *, tower_fraction: float
) -> Losses:
    """The vision tower's own loss for the first `tower_fraction` of the run, then the captions' beside it."""
    both: Any = model
    if context.images_seen < tower_fraction * context.total_images:
        return Losses(pair_loss(both.pair_scores(both.image_tokens(batch["pixels"])), batch["pairs"]))
    captions, image_tokens = caption_loss(both.captioner, batch)
    return Losses(captions + PAIRS_WEIGHT * pair_loss(both.pair_scores(image_tokens), batch["pairs"]))


def caption_loss(captioner: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross entropy of the captions' tokens, computed only at the targets, and the image tokens (B, N, D)."""
    output = captioner.model(
        input_ids=batch["tokens"],
        position_ids=batch["positions"],
        attention_mask=batch["attention"],
        pixel_values=batch["pixels"],
        use_cache=False,
    )
    hidden = output.last_hidden_state
    labels = batch["labels"][:, 1:]
    is_target = labels != IGNORED
    logits = captioner.lm_head(hidden[:, :-1][is_target])
    return F.cross_entropy(logits.float(), labels[is_target]), output.image_hidden_states


def _untrained(tokenizer: Any, config: CaptionerFitConfig) -> Any:
    model = make_model(
        tokenizer,
        image_size=config.image_size,
        channels=config.channels,
        blocks=config.blocks,
        width=config.width,
        text_depth=config.text_depth,
        heads=config.heads,
    )
    # The fused kernel's backward is slow on a CPU (a fifth of the whole step, measured).
    model.model.language_model.set_attn_implementation("eager")
    return model


def _pack(
    image: LabelledImage, tokenizer: Any, config: CaptionerFitConfig, prompts: tuple[str, str]
) -> Packed:
    side = config.image_size // STRIDE
    image_tokens = [tokenizer.convert_tokens_to_ids(IMAGE)] * side**2
    answers = [
        (tokenizer(f"{prompt}\n").input_ids, [*tokenizer(caption).input_ids, tokenizer.eos_token_id])
        for prompt, caption in zip(prompts, image.captions, strict=True)
    ]
    return pack(image_tokens, answers)


def _pixels(labelled: Sequence[LabelledImage], processor: Any) -> Tensor:
    """Every image as the processor prepares it, (N, 3, S, S)."""
    chunks = []
    for start in range(0, len(labelled), CHUNK):
        images = [record.open() for record in labelled[start : start + CHUNK]]
        chunks.append(processor.image_processor(images, return_tensors="pt").pixel_values)
    return torch.cat(chunks)


def _batches(
    rows: Sequence[Packed],
    pixels: Tensor,
    pairs: WordPairs,
    pad: int,
    batch_size: int,
    images_seen: int,
    seed: int,
) -> Iterator[Batch]:
    for chosen in draw_batches(len(rows), batch_size, images_seen, seed=seed):
        batch = collate([rows[row] for row in chosen], pad)
        yield {
            "tokens": batch.tokens,
            "labels": batch.labels,
            "positions": batch.positions,
            "attention": batch.attention,
            "pixels": pixels[chosen],
            "pairs": pairs[chosen],
        }
