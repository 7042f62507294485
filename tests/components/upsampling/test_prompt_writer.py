"""A pretrained language model as upsampler: its caption begins with the prompt, whatever the model says."""

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from components.captioning.architecture import train_tokenizer
from components.upsampling.language_model import LanguageModel
from components.upsampling.prompt_upsampler import PromptUpsampler, writer_of
from components.upsampling.prompt_writer import INSTRUCTION, MOST_PROMPT_TOKENS, PromptWriter

TEXTS = ["a red star at top left on a black background", "a picture of a small cross\n"] * 4
TEMPLATE = "<user> {{ messages[0]['content'] }}{% if add_generation_prompt %} <answer> {% endif %}"


def random_model(favoured: str | None = None) -> LanguageModel:
    """A model of random weights. favoured: a token that it is most likely to say."""
    tokenizer = train_tokenizer(TEXTS, 320)
    end = tokenizer.eos_token_id
    settings = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=end,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(settings)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    if favoured is not None:
        model.lm_head = torch.nn.Linear(16, len(tokenizer))
        model.lm_head.bias.data[tokenizer.convert_tokens_to_ids(favoured)] = 100.0
    return LanguageModel(model, tokenizer)


def test_a_caption_begins_with_the_prompt_without_its_opening():
    writer = PromptWriter(random_model())
    captions = writer(["Show me a red star.", "two  crosses\n!"], [1, 2])
    assert captions[0].startswith("A red star") and captions[1].startswith("two crosses")
    assert all(len(caption) > 14 and "\n" not in caption for caption in captions)


def test_the_caption_is_a_function_of_prompt_and_seed():
    writer = PromptWriter(random_model())
    prompts, seeds = ["a red star", "a small cross on a star", "a cross"], [5, 6, 7]
    together = writer(prompts, seeds)
    assert [writer([prompt], [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)] == together
    assert writer(prompts, [8, 9, 10]) != together


def test_a_model_that_follows_instructions_is_instructed():
    language_model = random_model()
    language_model.tokenizer.chat_template = TEMPLATE
    seen: list[list[int]] = []
    language_model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    (caption,) = PromptWriter(language_model)(["please draw a red star"], [0])
    expected = f"<user> {INSTRUCTION.format(prompt='a red star')} <answer> a red star"
    assert language_model.tokenizer.decode(seen[0]) == expected
    assert caption.startswith("a red star")


def test_where_nothing_is_added_there_is_no_caption():
    assert PromptWriter(random_model("</s>"))(["a red star"], [0]) == [""]
    long = "a red star and " * MOST_PROMPT_TOKENS
    assert PromptWriter(random_model())([long, "", "please"], [0, 0, 0])[:2] == ["", ""]


def test_it_is_loaded_by_its_folder_as_what_it_is(tmp_path: Path):
    PromptWriter(random_model()).language_model.save(tmp_path / "model")
    writer = writer_of(LanguageModel.load(tmp_path / "model"))
    assert isinstance(writer, PromptWriter)
    assert writer(["a red star"], [3]) == PromptWriter(random_model())(["a red star"], [3])
    PromptUpsampler(writer).save(tmp_path / "upsampler")
    loaded = PromptUpsampler.load(tmp_path / "upsampler")
    assert loaded(["a red star"], seed=1) == PromptUpsampler(writer)(["a red star"], seed=1)


def test_what_is_no_language_model_is_named_in_one_line(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^upsampler '.*' cannot be loaded \(.*\); give a folder") as caught:
        LanguageModel.load(tmp_path)
    assert "\n" not in str(caught.value)
