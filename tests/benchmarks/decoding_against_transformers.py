"""What the upsampler's own decoding gains: CPU-seconds as a ratio to transformers', with cache and without.

    python -m tests.benchmarks.decoding_against_transformers [--rows 32] [--words 24]

A language model of the demo's sizes with random weights reads prompts of so many words and answers each word;
every second token is a word's, known beforehand, which ours reads in one pass with the answer before it. All
three read the same tokens in float32, in one thread.

Measured on two cores of an Intel Cascade Lake: ours takes .43 of the time of transformers' cache, .13 of that
without a cache.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from components.upsampling.language_model import without_kernel_advice
from components.upsampling.lfm2_decoder import Lfm2Decoder

VOCABULARY = 458


@dataclass(frozen=True)
class Costs:
    """CPU-seconds."""

    ours: float
    cached: float
    uncached: float


def measure(rows: int, words: int) -> Costs:
    """Decode `rows` prompts of `words` words side by side."""
    model = _model()
    prefix = torch.randint(VOCABULARY, (rows, words))
    answers = torch.randint(VOCABULARY, (rows, words, 2))  # an answer, and the word after it

    def ours() -> None:
        decoder = Lfm2Decoder(model)
        decoder.scores(prefix.tolist())
        for word in range(words):
            decoder.scores(answers[:, word].tolist())

    def cached() -> None:
        past = model(input_ids=prefix, use_cache=True, logits_to_keep=1).past_key_values
        for token in answers.flatten(1).unbind(1):
            model(input_ids=token[:, None], past_key_values=past, use_cache=True)

    def uncached() -> None:
        everything = torch.cat([prefix, answers.flatten(1)], 1)
        for length in range(words, 3 * words, 2):  # as few passes as ours
            model(input_ids=everything[:, :length], use_cache=False, logits_to_keep=1)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return Costs(*map(_seconds, (ours, cached, uncached)))
    finally:
        torch.set_num_threads(threads)


def _seconds(decode: Callable[[], None]) -> float:
    """The least of three."""
    found = []
    for _ in range(3):
        started = time.thread_time()
        decode()
        found.append(time.thread_time() - started)
    return min(found)


def _model() -> Any:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    without_kernel_advice()
    torch.manual_seed(0)
    settings = Lfm2Config(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False,
    )
    return Lfm2ForCausalLM(settings).eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--words", type=int, default=24)
    options = parser.parse_args()
    costs = measure(options.rows, options.words)
    sys.stdout.write(
        f"ours {costs.ours:.3f} s, transformers {costs.cached:.3f} s with its cache, {costs.uncached:.3f} s"
        f" without; ratios {costs.ours / costs.cached:.2f} and {costs.ours / costs.uncached:.2f}\n"
    )


if __name__ == "__main__":
    main()
