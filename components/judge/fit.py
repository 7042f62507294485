"""Fits a small open_clip judge on a labelled set, where no pretrained one is at hand.

Contrastive (CLIP, Radford 2021), with every text that is true of an image counted as its match, and some
captions cut to an excerpt, since alt texts hold less than captions do. Saved as open_clip's
`local-dir:` loads it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.conditioning.bpe import train_bpe
from components.corpus.labelled import LabelledImage, draw_batches
from components.judge.config import JudgeFitConfig
from components.randomness import derive_seed, seeded_weights
from components.training.checkpoints import Checkpoints
from components.training.loop import Trained, train
from components.training.loss import Batch, LossContext, Losses

PAD, START, END = "<pad>", "<start>", "<end>"
HEAD_WIDTH = 32  # features of an attention head
TEMPERATURE = 10.0  # the first scale of the cosines
HIGHEST_SCALE = 100.0  # CLIP's bound
PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def fit_judge(
    labelled: Sequence[LabelledImage],
    folder: Path,
    config: JudgeFitConfig,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train on `labelled` and save config, weights and tokenizer into `folder`."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from safetensors.torch import save_file

    tokenizer = _train_tokenizer((text for image in labelled for text in image.captions), config)
    tokenizer.save_pretrained(folder)  # before it is used: the padding in use would be saved with it
    sizes = _model_config(config, tokenizer)
    with seeded_weights(seed, "judge weights"):
        model = open_clip.CLIP(**sizes, init_logit_scale=math.log(TEMPERATURE))
    prepare = image_transform_v2(PreprocessCfg(size=config.image_size, **PREPROCESS), is_train=False)
    pixels = torch.stack([prepare(image.open()) for image in labelled])
    trained = train(
        model,
        contrastive_loss,
        lambda seen: _batches(labelled, pixels, tokenizer, config, seen, seed),
        config.training,
        seed=seed,
        purpose="judge",
        checkpoints=checkpoints,
        on_batch=on_batch,
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in trained.ema.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    document = {"model_cfg": sizes, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1) + "\n")
    return trained


def contrastive_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Symmetric cross entropy of the scaled cosines; `matches` (B, B): which text fits which image."""
    del context  # no noise in it
    image, text, scale = model(batch["pixels"], batch["tokens"])
    logits = scale.clamp(max=HIGHEST_SCALE) * image.float() @ text.float().T
    matches = batch["matches"]
    by_image = -(torch.log_softmax(logits, 1) * matches / matches.sum(1, keepdim=True)).sum(1)
    by_text = -(torch.log_softmax(logits, 0) * matches / matches.sum(0, keepdim=True)).sum(0)
    return Losses((by_image.mean() + by_text.mean()) / 2)


def excerpt(caption: str, rng: np.random.Generator) -> str:
    """A run of the caption's words, a quarter of them or more."""
    words = caption.split()
    length = int(rng.integers(max(1, len(words) // 4), len(words) + 1))
    start = int(rng.integers(len(words) - length + 1))
    return " ".join(words[start : start + length])


def _train_tokenizer(texts: Iterator[str], config: JudgeFitConfig) -> Any:
    """A byte-level BPE, caseless, that frames every text as CLIP's does."""
    from tokenizers import normalizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = train_bpe(
        texts,
        config.vocabulary,
        special_tokens=[PAD, START, END],
        prefix_space=True,
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 1), (END, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        model_max_length=config.context,
        clean_up_tokenization_spaces=False,
    )


def _model_config(config: JudgeFitConfig, tokenizer: Any) -> dict[str, Any]:
    """open_clip's model_cfg."""
    return {
        "embed_dim": config.embedding,
        "vision_cfg": {
            "image_size": config.image_size,
            "width": config.vision_width,
            "head_width": HEAD_WIDTH,
            "layers": [config.vision_blocks] * 4,  # a list of four: open_clip's residual network
        },
        "text_cfg": {
            "hf_tokenizer_name": "local",  # for a local-dir: open_clip reads it from the folder itself
            "context_length": config.context,
            "vocab_size": len(tokenizer),
            "width": config.width,
            "heads": config.width // HEAD_WIDTH,
            "layers": config.text_depth,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }


def _batches(
    labelled: Sequence[LabelledImage],
    pixels: Tensor,
    tokenizer: Any,
    config: JudgeFitConfig,
    images_seen: int,
    seed: int,
) -> Iterator[Batch]:
    size = config.training.batch_size
    for chosen in draw_batches(len(labelled), size, images_seen, seed=seed):
        rng = np.random.default_rng(derive_seed(seed, "judge texts", images_seen))
        images_seen += size
        captions = [labelled[row].captions[int(rng.integers(2))] for row in chosen]
        texts = [excerpt(text, rng) if rng.random() < config.excerpts else text for text in captions]
        matches = [[caption in labelled[row].captions for caption in captions] for row in chosen]
        tokens = tokenizer(
            texts, padding="max_length", truncation=True, max_length=config.context, return_tensors="pt"
        ).input_ids
        yield {"pixels": pixels[chosen], "tokens": tokens, "matches": torch.tensor(matches).float()}
