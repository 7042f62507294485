"""A small captioner from scratch: its tokenizer, processor and model.

Everything is of stock transformers classes (Llava: a CLIP vision tower, a projector, a Llama), so that the
saved folder loads through `AutoProcessor` and `AutoModelForImageTextToText` exactly as a pretrained one does.
"""

from collections.abc import Iterable
from typing import Any

from components.conditioning.bpe import train_bpe

PAD, END, IMAGE = "<pad>", "</s>", "<image>"
SPECIAL_TOKENS = (PAD, END, IMAGE)
# A turn of the user: images first, then the instruction; the caption follows on its own line.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% for part in message['content'] if part['type'] == 'image' %}" + IMAGE + "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of at most `vocabulary` tokens: any text can be encoded, a usual word is one token."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts, vocabulary, special_tokens=SPECIAL_TOKENS, prefix_space=False),
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: Any, image_size: int, patch: int) -> Any:
    """The processor: any image is squashed to `image_size` (bicubic, antialiased) and scaled to -1..1."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = {"height": image_size, "width": image_size}
    images = CLIPImageProcessor(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the vision tower's class token, which "default" leaves out
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    tokenizer: Any, *, image_size: int, patch: int, width: int, vision_depth: int, text_depth: int, heads: int
) -> Any:
    """An untrained LlavaForConditionalGeneration whose two towers have the same width."""
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    pad, end, image = (tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS)
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=vision_depth,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch,
        projection_dim=width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=text_depth,
        num_attention_heads=heads,
        max_position_embeddings=1024,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image,
        image_seq_length=(image_size // patch) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model
