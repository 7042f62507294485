"""Packing: for the model, one sequence with both answers is the two sequences with one answer each."""

import pytest
import torch
import torch.nn.functional as F

from components.captioning.architecture import IMAGE, make_processor, train_tokenizer
from components.captioning.config import CaptionerFitConfig
from components.captioning.fit import _pack, _untrained, caption_loss
from components.captioning.packing import IGNORED, collate, pack
from components.corpus.labelled import LabelledImage

CONFIG = CaptionerFitConfig(image_size=32, channels=(8, 8, 16, 16), width=32, text_depth=2, heads=2)
PROMPTS = ("Say little.", "Say more, please.")
CAPTIONS = [
    ("a red circle", "a large red circle at left"),
    ("two stars", "two small blue stars on a wall of stone"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*PROMPTS * 9, *(text for pair in CAPTIONS for text in pair)], 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    return _untrained(tokenizer, CONFIG).eval()


def batch_of(packed, tokenizer, pixels) -> dict[str, torch.Tensor]:
    batch = collate(packed, tokenizer.pad_token_id)
    names = ("tokens", "labels", "positions", "attention")
    return {**{name: getattr(batch, name) for name in names}, "pixels": pixels}


def test_the_loss_is_that_of_the_answers_one_by_one(tokenizer, model):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    packed = [_pack(LabelledImage(b"", *pair), tokenizer, CONFIG, PROMPTS) for pair in CAPTIONS]
    with torch.no_grad():
        together = caption_loss(model, batch_of(packed, tokenizer, pixels))[0]
        losses = []
        for row, pair in enumerate(CAPTIONS):
            image = [tokenizer.convert_tokens_to_ids(IMAGE)] * packed[row].tokens.count(
                tokenizer.convert_tokens_to_ids(IMAGE)
            )
            for prompt, caption in zip(PROMPTS, pair, strict=True):
                prompt_tokens = image + tokenizer(f"{prompt}\n").input_ids
                answer = [*tokenizer(caption).input_ids, tokenizer.eos_token_id]
                logits = model(
                    input_ids=torch.tensor([prompt_tokens + answer]), pixel_values=pixels[row : row + 1]
                ).logits
                predicted = logits[0, len(prompt_tokens) - 1 : -1]
                losses.append(F.cross_entropy(predicted, torch.tensor(answer), reduction="none"))
    assert together.item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)


def test_the_packed_prompt_is_the_one_that_the_processor_makes(tokenizer):
    """Token for token, so that the captioner gets the prompt it was trained on."""
    processor = make_processor(tokenizer, 32)
    content = [{"type": "image"}, {"type": "text", "text": PROMPTS[0]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    packed = _pack(LabelledImage(b"", *CAPTIONS[0]), tokenizer, CONFIG, PROMPTS)
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    image_count = packed.tokens.count(image)
    answer = len(tokenizer(CAPTIONS[0][0]).input_ids) + 1
    prompt_tokens = packed.tokens[: len(packed.segments) - packed.segments.count(2) - answer]
    assert prompt_tokens == [image] * (image_count - 1) + tokenizer(text).input_ids


def test_an_answer_attends_to_the_image_and_itself_and_nothing_else():
    row = pack([9, 9], [([1], [2, 3]), ([4], [5])])
    assert row.tokens == [9, 9, 1, 2, 3, 4, 5]
    assert row.labels == [IGNORED] * 3 + [2, 3] + [IGNORED] + [5]
    assert row.positions == [0, 1, 2, 3, 4, 2, 3]
    attended = (collate([row], pad=0).attention[0, 0] == 0).int().tolist()
    assert attended == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]


def test_padding_a_short_row_beside_a_long_one_adds_nothing_to_the_loss(tokenizer, model):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    packed = [_pack(LabelledImage(b"", *pair), tokenizer, CONFIG, PROMPTS) for pair in CAPTIONS]
    counts = [sum(label != IGNORED for label in row.labels) for row in packed]
    with torch.no_grad():
        alone = [
            caption_loss(model, batch_of([row], tokenizer, pixels[i : i + 1]))[0].item()
            for i, row in enumerate(packed)
        ]
        both = caption_loss(model, batch_of(packed, tokenizer, pixels))[0].item()
    weighted = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
    assert both == pytest.approx(weighted, rel=1e-4)
