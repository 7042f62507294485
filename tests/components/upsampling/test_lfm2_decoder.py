"""Cached decoding: the scores are those of the whole sequence read at once, wherever the other rows are."""

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from components.upsampling.lfm2_decoder import FIRST_PLACES, Lfm2Decoder

VOCABULARY = 40
LAYERS = ["conv", "full_attention", "conv", "full_attention"]


@pytest.fixture(scope="module")
def model() -> Lfm2ForCausalLM:
    settings = Lfm2Config(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=len(LAYERS),
        num_attention_heads=3,
        num_key_value_heads=3,
        layer_types=LAYERS,
        block_auto_adjust_ff_dim=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(settings).double().eval().requires_grad_(False)
    for weights in model.parameters():  # the norms' too, which begin as ones
        weights.add_(0.3 * torch.randn_like(weights))
    return model


def tokens(length: int, seed: int) -> list[int]:
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def at_once(model: Lfm2ForCausalLM, sequence: list[int]) -> torch.Tensor:
    """The scores after a sequence, without a cache."""
    return Lfm2Decoder(model).scores([sequence])[0]


def test_the_scores_are_those_of_transformers(model):
    """Up to the float32 in which its norms compute."""
    sequence = tokens(FIRST_PLACES + 9, 3)
    for length in (1, 2, 50, len(sequence)):
        expected = model(input_ids=torch.tensor([sequence[:length]]), use_cache=False).logits[0, -1]
        assert torch.allclose(at_once(model, sequence[:length]), expected, rtol=1e-5, atol=1e-5)


def test_cached_scores_are_the_uncached_ones_whatever_the_other_rows_do(model):
    """Rows begin, go on by chunks of any size, and leave; the cache grows in both directions."""
    generator, decoder = torch.Generator().manual_seed(1), Lfm2Decoder(model)
    rows: list[list[int]] = []
    checked = 0
    for turn in range(60):
        draws = torch.randint(1, 6, (40,), generator=generator).tolist()
        if turn % 3 == 0:
            begun = [tokens(3 * draw, turn) for draw in draws[: draws[0]]]
            scores, first = decoder.scores(begun, len(rows)), len(rows)
            rows += begun
        else:
            chunks = [tokens(draw, turn + row) for row, draw in zip(range(len(rows)), draws, strict=False)]
            scores, first = decoder.scores(chunks), 0
            rows = [row + chunk for row, chunk in zip(rows, chunks, strict=True)]
        for row in range(turn % 3, len(scores), 5):
            expected = at_once(model, rows[first + row])
            assert torch.allclose(scores[row], expected, rtol=1e-12, atol=1e-12)
            checked += 1
        while len(rows) > 20:
            decoder.remove(draws[-1])
            rows[draws[-1]] = rows[-1]
            rows.pop()
        assert len(decoder) == len(rows)
    assert checked > 100 and max(map(len, rows)) > FIRST_PLACES


def test_scores_within_a_chunk_and_after_tokens_were_taken_back_are_those_of_what_is_left(model):
    decoder, rows = Lfm2Decoder(model), [tokens(9, 1), tokens(4, 2)]
    decoder.scores(rows)
    for turn in range(12):
        chunks = [tokens(5, 10 + turn), tokens(3, 30 + turn)]
        scores = decoder.scores(chunks, ends=[[1, 4, 5], [2]])
        for place, (row, end) in enumerate([(0, 1), (0, 4), (0, 5), (1, 2)]):
            expected = at_once(model, rows[row] + chunks[row][:end])
            assert torch.allclose(scores[place], expected, rtol=1e-12, atol=1e-12)
        for row, kept in enumerate([1 + turn % 4, 2]):
            decoder.retract(row, len(chunks[row]) - kept)
            rows[row] = rows[row] + chunks[row][:kept]
