"""A small captioner from scratch: its tokenizer, processor and model.

Everything is of stock transformers classes (FastVLM, Vasu 2024, a LLaVA whose vision tower is a convolutional
network of timm; a projector; an OPT), so that the saved folder loads through `AutoProcessor` and
`AutoModelForImageTextToText` exactly as a pretrained one does.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from components.conditioning.bpe import train_bpe

PAD, END, IMAGE = "<pad>", "</s>", "<image>"
STRIDE = 16  # pixels of the image to a side of one image token
MOST_TOKENS = 1024  # of image, instruction and caption together
# OPT's own .02 is lost beside image tokens of about 1, and which thing stands where was learned last: of the
# sampled long captions 62% were true, with .02 51% (one seed, 200 CPU-seconds).
# Image tokens, too, start as large as words (their projector's own .02 makes them .01), and a norm of one
# group replaces batch norm: together 76% of sampled long captions true, without 68% (one seed, 400 CPU-s).
EMBEDDING_SPREAD = 0.5
STEM_WIDTH = 16  # channels; the stem's last convolution has twice as many
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


def make_processor(tokenizer: Any, image_size: int) -> Any:
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
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    tokenizer: Any,
    *,
    image_size: int,
    channels: Sequence[int],
    blocks: int,
    width: int,
    text_depth: int,
    heads: int,
) -> Any:
    """An untrained FastVlmForConditionalGeneration: a residual network, its cells as tokens, an OPT.

    OPT adds a learned embedding of its place to every image token; Llama's rotary ones do not. Measured with
    one seed and 200 CPU-seconds: 51% of the sampled long captions were true with OPT, 48% with Llama.

    channels: of the residual network's four stages, at strides 4, 8, 16 and 16, each of `blocks` blocks.
    """
    from transformers import (
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        GenerationConfig,
        OPTConfig,
        TimmWrapperConfig,
    )

    pad, end, image = (tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS)
    vision: dict[str, Any] = {
        "architecture": "resnet10t",
        "model_args": {
            "layers": [blocks] * len(channels),
            "channels": list(channels),
            "stem_width": STEM_WIDTH,
            "output_stride": STRIDE,
            "norm_layer": "groupnorm1",  # one group: nothing depends on what else is in a batch
        },
        "do_pooling": False,
        "hidden_size": channels[-1],
    }
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        ffn_dim=4 * width,
        num_hidden_layers=text_depth,
        num_attention_heads=heads,
        max_position_embeddings=MOST_TOKENS,
        dropout=0.0,
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
    )
    config = FastVlmConfig(
        vision_config=TimmWrapperConfig(**vision),
        text_config=text,
        image_token_index=image,
        image_seq_length=(image_size // STRIDE) ** 2,
    )
    model = FastVlmForConditionalGeneration(config)
    decoder = model.model.language_model.decoder
    for embedding in (decoder.embed_tokens, decoder.embed_positions):
        nn.init.normal_(embedding.weight, std=EMBEDDING_SPREAD)
    for layer in model.model.multi_modal_projector.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model
