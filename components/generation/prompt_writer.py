"""A pretrained language model, given by id or folder, that goes on with a prompt to a longer caption.

The caption begins with the prompt, so that what was asked stands in it; a model that follows instructions is
told what to add. prompt_editor.py is the other kind of writer, which we fit ourselves.
"""

from collections.abc import Sequence

from components.generation.language_model import LanguageModel
from components.generation.prompt_cleaning import prompt_units
from components.generation.prompt_edits import joined
from components.generation.sampling_noise import GumbelNoise

INSTRUCTION = (
    "Describe a picture in one sentence, with its colours, places and background."
    " Begin with these words: {prompt}"
)
MOST_TOKENS = 96  # of an answer
MOST_PROMPT_TOKENS = 256  # a longer prompt gets no answer
BATCH = 64  # prompts that are answered together


class PromptWriter:
    """Goes on with prompts. The same (prompt, seed) gives the same text."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float = 1.0, min_p: float = 0.0
    ) -> list[str]:
        """One caption per prompt, a line, sampled with the noise of its seed; "" where nothing is added."""
        captions = [""] * len(prompts)
        starts = [joined(prompt_units(prompt)).rstrip(" .!") for prompt in prompts]
        inputs = [self._input(start) for start in starts]
        rows = [row for row, ids in enumerate(inputs) if starts[row] and len(ids) <= MOST_PROMPT_TOKENS]
        for at in range(0, len(rows), BATCH):
            batch = rows[at : at + BATCH]
            noise = [GumbelNoise(seeds[row], temperature, min_p).sample for row in batch]
            answers = self.language_model.continued([inputs[row] for row in batch], noise, MOST_TOKENS)
            for row, answer in zip(batch, answers, strict=True):
                captions[row] = self._caption(starts[row], answer)
        return captions

    def _input(self, start: str) -> list[int]:
        """The instruction, for a model that has a template for it, and the start of the answer."""
        tokenizer = self.language_model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return list(tokenizer(start).input_ids)
        turn = {"role": "user", "content": INSTRUCTION.format(prompt=start)}
        text = tokenizer.apply_chat_template(
            [turn], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        # The template writes the special tokens itself.
        return list(tokenizer(f"{text}{start}", add_special_tokens=False).input_ids)

    def _caption(self, start: str, answer: Sequence[int]) -> str:
        added = self.language_model.tokenizer.decode(answer, skip_special_tokens=True)
        first_line = added.splitlines()[0].rstrip() if added.strip() else ""
        return f"{start}{first_line}" if first_line else ""
