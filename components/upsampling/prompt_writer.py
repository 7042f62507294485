"""A pretrained language model, given by id or folder, that goes on with a prompt to a longer caption.

The caption begins with the prompt, so that what was asked stands in it; a model that follows instructions is
told what to add. prompt_editor.py is the other kind of writer, which we fit ourselves.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from components.upsampling.caption_session import write_all
from components.upsampling.language_model import LanguageModel
from components.upsampling.prompt_cleaning import prompt_units
from components.upsampling.prompt_edits import joined
from components.upsampling.sampling_noise import RowNoise, sample

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
        return write_all(self.begin(temperature=temperature, min_p=min_p), prompts, seeds)

    def begin(self, *, temperature: float = 1.0, min_p: float = 0.0) -> "WriteSession":
        """Captions that are written side by side, to which others can be added."""
        return WriteSession(self, temperature, min_p)

    def write(
        self, prompts: Sequence[str], seeds: Sequence[int], temperature: float, min_p: float
    ) -> list[str]:
        """One batch."""
        captions = [""] * len(prompts)
        starts = [joined(prompt_units(prompt)).rstrip(" .!") for prompt in prompts]
        inputs = [self._input(start) for start in starts]
        rows = [row for row, ids in enumerate(inputs) if starts[row] and len(ids) <= MOST_PROMPT_TOKENS]
        if not rows:
            return captions
        noises = [RowNoise(seeds[row]) for row in rows]

        def choose(scores: Tensor) -> list[int]:
            uniform = [noise.next(scores.shape[-1]) for noise in noises]
            return sample(scores, uniform, temperature=temperature, min_p=min_p)

        answers = self.language_model.continued([inputs[row] for row in rows], choose, MOST_TOKENS)
        for row, answer in zip(rows, answers, strict=True):
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


class WriteSession:
    """A CaptionSession of a writer: a step writes one batch of captions to their ends."""

    def __init__(self, writer: PromptWriter, temperature: float, min_p: float) -> None:
        self.writer, self.temperature, self.min_p = writer, temperature, min_p
        self._waiting: list[tuple[Any, str, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Any, prompt: str, seed: int) -> None:
        self._waiting.append((key, prompt, seed))

    def retain(self, is_wanted: Callable[[Any], bool]) -> None:
        self._waiting = [waiting for waiting in self._waiting if is_wanted(waiting[0])]

    def advance(self) -> dict[Any, str]:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        prompts, seeds = [prompt for _, prompt, _ in batch], [seed for *_, seed in batch]
        captions = self.writer.write(prompts, seeds, self.temperature, self.min_p)
        return {key: caption for (key, *_), caption in zip(batch, captions, strict=True)}
