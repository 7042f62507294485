"""The one BPE training: ids of special tokens, any text encodable, options that do what they say."""

from tokenizers import Tokenizer, normalizers

from components.conditioning.bpe import train_bpe

TEXTS = [
    f"A large {colour} {shape} on a {background} background"
    for colour in ("red", "green", "cyan")
    for shape in ("star", "circle", "square")
    for background in ("black", "white")
]


def bpe(**options) -> Tokenizer:
    settings = {"special_tokens": ["<pad>", "<s>"], "prefix_space": True} | options
    return train_bpe(iter(TEXTS), 300, **settings)


def test_the_special_tokens_have_the_first_ids_in_order_and_are_never_split():
    tokenizer = bpe(special_tokens=["<pad>", "<s>", "<image>"])
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<s>", "<image>")] == [0, 1, 2]
    assert tokenizer.encode("<image>", add_special_tokens=False).ids == [2]


def test_the_vocabulary_holds_every_byte_and_no_more_tokens_than_asked():
    tokenizer = bpe()
    assert tokenizer.get_vocab_size() == 300
    assert len([token for token in tokenizer.get_vocab() if len(token) == 1]) == 256


def test_a_text_of_unseen_characters_comes_back_whole():
    tokenizer = bpe(prefix_space=False)
    for text in ("ein Löwe, 獅子 \N{LION FACE}", "A red star", "\x00\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_with_a_prefix_space_the_first_word_has_the_token_it_has_inside_a_text():
    assert bpe(prefix_space=True).encode("red").ids == bpe().encode(" red").ids
    without = bpe(prefix_space=False)
    assert without.encode("red").ids != without.encode(" red").ids


def test_the_normalizer_is_applied_before_the_merges_are_learned():
    caseless = bpe(normalizer=normalizers.Lowercase())
    assert caseless.encode("RED STAR").ids == caseless.encode("red star").ids
    assert bpe().encode("RED STAR").ids != bpe().encode("red star").ids


def test_the_same_texts_give_the_same_bytes():
    assert bpe().to_str() == bpe().to_str()
