"""Text encoders: the learned vocabulary, and frozen encoders as transformers saves them."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from components.conditioning.text import (
    ENCODER_FOLDER,
    TOKENIZER_FILE,
    FrozenText,
    LearnedText,
    TextConfig,
    TextTokens,
    fit_text_encoder,
    load_text_encoder,
    padded_length,
)
from components.errors import InputError

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "star", "cross")
CAPTIONS = [
    f"a {c} {s} and a {d} {z}" for c, s in zip(COLOURS, SHAPES, strict=True) for d in COLOURS for z in SHAPES
]
HOSTILE = ["", " ", "a", "ein grüner Kreis", "一个红色的圆", "🔴🟦", "<pad><start>", "a\nb\tc", "x" * 500]


@pytest.fixture(scope="module")
def learned() -> LearnedText:
    return LearnedText.fit(CAPTIONS, 320, 24)


def test_captions_come_back_from_their_ids(learned):
    for caption in (*CAPTIONS[:5], "a colour never seen", "grün 圆 🔴"):
        text = learned([caption])
        ids = text.values[0][text.mask[0]].tolist()
        assert ids[0] == 1 and 0 not in ids
        assert learned.tokenizer.decode(ids[1:]).strip() == caption


def test_the_same_captions_give_the_same_vocabulary():
    fitted = [LearnedText.fit(iter(CAPTIONS), 320, 24).tokenizer.to_str() for _ in range(3)]
    assert len(set(fitted)) == 1
    little, much, most = (
        LearnedText.fit(c, n, 24).vocabulary for c, n in ((["a"], 320), (CAPTIONS, 290), (CAPTIONS, 320))
    )
    assert little < much == 290 < most <= 320  # as many as wanted, or as the captions teach


def test_any_text_is_ids_of_the_vocabulary_within_the_length(learned):
    text = learned(HOSTILE)
    assert text.values.shape == text.mask.shape == (len(HOSTILE), 24)
    assert text.values.dtype == torch.long and text.mask.dtype == torch.bool
    assert text.values.min() >= 0 and text.values.max() < learned.vocabulary
    assert text.mask[:, 0].all()
    assert torch.equal(text.mask.sum(1)[[0, -1]], torch.tensor([1, 24]))
    assert not text.values[~text.mask].any()


def test_captions_that_are_longer_than_what_is_read_are_counted(learned):
    longer = LearnedText(learned.tokenizer.to_str(), 200)
    texts = [" ".join(CAPTIONS[:n])[:length] for n in (1, 5) for length in range(0, 160)]
    lengths = longer(texts).mask.sum(1)
    assert learned.count_cut(texts) == (lengths > 24).sum() > 0
    exact = texts[int((lengths == 24).nonzero()[0])]
    assert learned.count_cut([exact]) == 0 and learned.count_cut([exact + " a a"]) == 1


def test_the_null_text_is_one_token(learned):
    null = learned([""])
    assert null.mask.sum() == 1 and null.values.sum() == 1


def test_a_text_s_ids_do_not_depend_on_its_neighbours(learned):
    short, long = CAPTIONS[0], " ".join(CAPTIONS[:3])
    alone, together = learned([short]), learned([short, long])
    width = alone.mask.shape[1]
    assert torch.equal(together.values[0, :width], alone.values[0])
    assert together.mask.sum(1)[0] == alone.mask.sum()


def test_padding_comes_in_few_sizes():
    assert [padded_length(n, 48) for n in (1, 8, 9, 41, 48, 60)] == [8, 8, 16, 48, 48, 48]
    assert padded_length(3, 5) == 5


def test_a_saved_vocabulary_encodes_the_same(learned, tmp_path):
    learned.save(tmp_path)
    loaded = load_text_encoder(TextConfig(max_length=24), tmp_path)
    text, again = learned(HOSTILE), loaded(HOSTILE)
    assert torch.equal(text.values, again.values) and torch.equal(text.mask, again.mask)
    assert loaded.identity == learned.identity


def test_another_vocabulary_or_length_is_another_identity(learned):
    others = [LearnedText.fit(HOSTILE, 320, 24), LearnedText.fit(CAPTIONS, 290, 24)]
    others += [LearnedText(learned.tokenizer.to_str(), 23)]
    identities = {encoder.identity for encoder in (learned, *others)}
    assert len(identities) == 4
    assert LearnedText.fit(CAPTIONS, 320, 24).identity == learned.identity


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe"])
def test_a_damaged_vocabulary_is_one_line(learned, tmp_path, content):
    (tmp_path / TOKENIZER_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer") as caught:
        LearnedText.load(tmp_path, 24)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("features", [(), (3,)])
def test_texts_are_mixed_row_by_row(features):
    ours = TextTokens(torch.arange(12).view(3, 4, *[1] * len(features)).expand(3, 4, *features) + 1,
                      torch.tensor([[True] * 4, [True, True, False, False], [True] * 4]))  # fmt: skip
    null = TextTokens(torch.full((1, 2, *features), 99), torch.tensor([[True, False]])).repeat(3, 4)
    assert null.values.shape == ours.values.shape
    assert torch.equal(null.mask, torch.tensor([[True, False, False, False]] * 3))
    mixed = ours.where(torch.tensor([True, False, True]), null)
    for row, source in enumerate((ours, null, ours)):
        assert torch.equal(mixed.values[row], source.values[row])
        assert torch.equal(mixed.mask[row], source.mask[row])
    both = ours.joined(null)
    assert both.values.shape == (6, 4, *features)
    assert torch.equal(both.values[:3], ours.values) and torch.equal(both.mask[3:], null.mask)


def frozen_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    words = ["<pad>", "</s>", "<unk>", "<s>", "a", "and", *COLOURS, *SHAPES]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "$A </s>" if kind == "t5" else "<s> $A </s>"
    special = [("<s>", 3), ("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>" if kind == "t5" else "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


CLIP_TEXT = CLIPTextConfig(
    vocab_size=16,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=12,
    bos_token_id=3,
    eos_token_id=1,
    pad_token_id=1,
)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> dict[str, Path]:
    """Tiny models as their own libraries save them: T5, CLIP's text tower, and CLIP whole."""
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    clip = CLIPModel(CLIPConfig(text_config=CLIP_TEXT.to_dict(), vision_config=vision, projection_dim=8))
    saved = {"t5": t5, "t5-half": t5, "clip-text": CLIPTextModel(CLIP_TEXT), "clip": clip}
    folders = {}
    for name, model in saved.items():
        folders[name] = tmp_path_factory.mktemp(name)
        (model.half() if name == "t5-half" else model).save_pretrained(folders[name])
        frozen_tokenizer(name.partition("-")[0]).save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize("name", ["t5", "t5-half", "clip-text", "clip"])
def test_a_frozen_encoder_gives_features_that_travel_with_the_model(pretrained, tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(pretrained[name], source)
    encoder = fit_text_encoder(TextConfig(model=str(source), max_length=10), iter(()))
    text = encoder(["a red circle", "a red circle and a blue square", ""])
    special = 1 if name.startswith("t5") else 2
    assert text.mask.sum(1).tolist() == [3 + special, 7 + special, special]
    assert text.values.shape == (3, 7 + special, encoder.features) and encoder.features == 16
    assert text.values.dtype == torch.float32
    alone = encoder(["a red circle"])  # padding changes nothing
    assert torch.equal(alone.values[0], text.values[0, : 3 + special])
    assert encoder(["red " * 40]).mask.shape == (1, 10)

    identity = encoder.identity
    encoder.save(tmp_path)
    shutil.rmtree(source)
    loaded = load_text_encoder(TextConfig(model=str(source), max_length=10), tmp_path)
    assert torch.equal(loaded(["a red circle"]).values, alone.values)
    assert loaded.identity == identity
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_of_a_whole_clip_the_text_tower_is_taken(pretrained):
    encoder = FrozenText(str(pretrained["clip"]), 10)
    whole = CLIPModel.from_pretrained(pretrained["clip"]).eval()
    inputs = encoder.tokenizer(["a red circle"], return_tensors="pt")
    with torch.no_grad():
        expected = whole.text_model(**inputs).last_hidden_state
    torch.testing.assert_close(encoder(["a red circle"]).values, expected)


@pytest.mark.parametrize("name", ["t5", "t5-half", "clip-text"])
def test_features_are_those_of_a_padded_batch_but_for_rounding(pretrained, name):
    """As transformers encodes a batch, padded and masked."""
    encoder = FrozenText(str(pretrained[name]), 10)
    captions = [CAPTIONS[0], "a red circle", "a star and a blue cross"]
    inputs = encoder.tokenizer(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = encoder.model(**inputs).last_hidden_state.float()
    text = encoder(captions)
    assert torch.equal(text.mask, inputs.attention_mask.bool())
    rounding = 2e-2 if name == "t5-half" else 1e-5
    torch.testing.assert_close(text.values[text.mask], expected[text.mask], atol=rounding, rtol=rounding)
    assert not text.values[~text.mask].any()


@pytest.mark.parametrize("name", ["t5", "t5-half", "clip-text"])
def test_a_text_s_features_are_the_same_bits_cached_or_not_and_in_any_batch(pretrained, name):
    """A resumed training begins with an empty cache, in the middle of an epoch."""
    cached, fresh = (
        FrozenText(str(pretrained[name]), 10),
        FrozenText(str(pretrained[name]), 10, cache_bytes=0),
    )
    first = cached(CAPTIONS[:6])
    again = cached(CAPTIONS[:6])
    assert torch.equal(first.values, again.values) and torch.equal(first.mask, again.mask)
    assert torch.equal(fresh(CAPTIONS[:6]).values, first.values)
    assert (cached.cache.hits, cached.cache.misses, len(cached.cache)) == (6, 6, 6)
    assert (fresh.cache.hits, fresh.cache.misses, len(fresh.cache)) == (0, 6, 0)
    for row, caption in enumerate(CAPTIONS[:6]):
        alone, beside = fresh([caption]), cached(["a", caption, caption])
        length = alone.mask.shape[1]
        assert torch.equal(alone.values[0], first.values[row, :length])
        assert torch.equal(beside.values[1, :length], first.values[row, :length])
        assert torch.equal(beside.values[2], beside.values[1])


def test_another_device_empties_the_cache_and_the_same_keeps_it(pretrained):
    encoder = FrozenText(str(pretrained["t5"]), 10)
    encoder(["a red circle"])
    assert encoder.to(torch.device("cpu")) is encoder and len(encoder.cache) == 1
    assert len(encoder.to(torch.device("meta")).cache) == 0
    assert encoder.model.device == torch.device("meta")


def test_another_model_tokenizer_or_length_is_another_identity(pretrained, tmp_path):
    t5 = FrozenText(str(pretrained["t5"]), 10)
    identity = t5.identity
    t5(["a red circle", "a"])  # how it was last used is not what it is
    assert FrozenText(str(pretrained["t5"]), 10).identity == identity
    others = [FrozenText(str(pretrained[name]), 10).identity for name in ("t5-half", "clip-text")]
    others.append(FrozenText(str(pretrained["t5"]), 9).identity)
    shutil.copytree(pretrained["t5"], tmp_path, dirs_exist_ok=True)
    frozen_tokenizer("clip").save_pretrained(tmp_path)
    others.append(FrozenText(str(tmp_path), 10).identity)
    assert len({identity, *others}) == 5


def test_a_text_of_no_token_is_one_of_padding(pretrained, tmp_path):
    """A tokenizer may add nothing; attention must still have something to attend to."""
    shutil.copytree(pretrained["t5"], tmp_path, dirs_exist_ok=True)
    tokenizer = frozen_tokenizer("t5")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save_pretrained(tmp_path)
    text = FrozenText(str(tmp_path), 10)(["", "a red circle"])
    assert text.mask.sum(1).tolist() == [1, 3] and text.values.isfinite().all()


def test_no_more_tokens_are_read_than_the_model_has_positions(pretrained):
    assert FrozenText(str(pretrained["clip"]), 48)(["red " * 40]).mask.shape == (1, 12)


@pytest.mark.parametrize("folder", ["nothing/is/here", "."])
def test_a_frozen_encoder_that_is_none_is_one_line(tmp_path, folder):
    with pytest.raises(
        InputError, match=r"text encoder '.*' cannot be loaded \(.*\); give a folder or"
    ) as caught:
        FrozenText(str(tmp_path / folder), 10)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_text_encoder(TextConfig(model="somewhere"), tmp_path)
    assert not (tmp_path / ENCODER_FOLDER).exists()
