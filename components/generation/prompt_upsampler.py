"""Prompt upsampling: a user's few words rewritten as a long caption that still says all of them.

A model that was trained on long captions generates best from them, so prompts are upsampled before images
are generated (DALL·E 3, Betker 2023). What is written is checked (prompt_checks.py); a caption that is
refused is sampled again, and after some tries the prompt stays as it is. So does one that says all already.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.generation.edit_tokens import is_edit_tokenizer
from components.generation.language_model import LanguageModel
from components.generation.prompt_checks import PromptChecks
from components.generation.prompt_editor import PromptEditor
from components.generation.prompt_writer import PromptWriter
from components.generation.upsampler_card import UpsamplerCard
from components.randomness import SampleSeed, derive_seed, sample_seeds

CARD, WRITER, JUDGE = "card.json", "language_model", "judge"  # in an upsampler's folder
SAMPLES_GROW_BY = 2  # captions of each try for one of the try before: 1, 2, 4, 8
NO_ANSWER = "no answer"  # in place of a check's name: the language model wrote nothing

Writer = PromptEditor | PromptWriter


@dataclass(frozen=True)
class UpsampledPrompt:
    """A prompt and what is generated from in its place.

    kept: as it was, as it says all already, or no upsampler was asked. rewritten: the caption passed every
    check. refused: none did, and the caption is the prompt; refused_by: the check that refused the last one.
    """

    prompt: str
    caption: str
    outcome: Literal["kept", "rewritten", "refused"]
    tries: int = 0
    refused_by: str | None = None

    @property
    def how(self) -> str:
        """In words: "kept", "rewritten", "refused: words"."""
        return self.outcome if self.refused_by is None else f"{self.outcome}: {self.refused_by}"


def unchanged(prompts: Sequence[str]) -> list[UpsampledPrompt]:
    """The prompts as they are, for a model without an upsampler or a user who wants none."""
    return [UpsampledPrompt(prompt, prompt, "kept") for prompt in prompts]


def writer_of(language_model: LanguageModel) -> Writer:
    """An editor of prompts where it was fitted as one, else what goes on with them."""
    is_editor = is_edit_tokenizer(language_model.tokenizer)
    return PromptEditor(language_model) if is_editor else PromptWriter(language_model)


class PromptUpsampler:
    """A writer and the checks of what it writes. The same (prompt, seed, index) gives the same caption."""

    def __init__(self, writer: Writer, checks: PromptChecks | None = None) -> None:
        self.writer, self.checks = writer, checks or PromptChecks()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "PromptUpsampler":
        """Read what `save` wrote. Raises InputError where there is no language model."""
        card = UpsamplerCard()
        if (folder / CARD).exists():
            card = UpsamplerCard.model_validate_json((folder / CARD).read_bytes())
        judge = folder / JUDGE if (folder / JUDGE).is_dir() else None
        language_model = LanguageModel.load(folder / WRITER, device=device, ours=True)
        return cls(writer_of(language_model), PromptChecks(card, judge))

    def save(self, folder: Path) -> None:
        """Write the card, the language model's files and the judge's into a new folder."""
        folder.mkdir()
        (folder / CARD).write_text(self.checks.card.model_dump_json(indent=1) + "\n")
        self.writer.language_model.save(folder / WRITER)
        if self.checks.judge_folder is not None:
            shutil.copytree(self.checks.judge_folder, folder / JUDGE, copy_function=shutil.copyfile)

    def __call__(self, prompts: Sequence[str], *, seed: int = 0, first: int = 0) -> list[UpsampledPrompt]:
        """What to generate from for each prompt; caption i is sampled with the noise of (seed, first + i)."""
        return self.upsample_each(prompts, sample_seeds(seed, len(prompts), first))

    def upsample_each(self, prompts: Sequence[str], seeds: Sequence[SampleSeed]) -> list[UpsampledPrompt]:
        """What to generate from for each prompt, each caption sampled with the noise of its (seed, index).

        The tries after the first sample ever more captions at once, and take the first that passes.
        """
        results = unchanged(prompts)
        rows = [row for row, text in enumerate(prompts) if text.strip() and not self.checks.is_complete(text)]
        for attempt in range(self.checks.card.tries):
            samples = [(row, sample) for row in rows for sample in range(SAMPLES_GROW_BY**attempt)]
            noise_seeds = [
                derive_seed(seeds[row].seed, "upsample", seeds[row].index, attempt, sample)
                for row, sample in samples
            ]
            tried = self._tried([prompts[row] for row, _ in samples], noise_seeds, attempt + 1)
            for (row, _), result in zip(samples, tried, strict=True):
                if results[row].outcome != "rewritten":
                    results[row] = result
            rows = [row for row in rows if results[row].outcome == "refused"]
        return results

    def _tried(self, prompts: Sequence[str], seeds: Sequence[int], attempt: int) -> list[UpsampledPrompt]:
        """One sample of each, checked."""
        card = self.checks.card
        captions = self.writer(prompts, seeds, temperature=card.temperature, min_p=card.min_p)
        refusals = self.checks.refused_by(prompts, captions)
        return [
            _result(prompt, caption, attempt, refusal)
            for prompt, caption, refusal in zip(prompts, captions, refusals, strict=True)
        ]


def _result(prompt: str, caption: str, tries: int, refusal: str | None) -> UpsampledPrompt:
    if not caption or refusal is not None:
        return UpsampledPrompt(prompt, prompt, "refused", tries, refusal if caption else NO_ANSWER)
    return UpsampledPrompt(prompt, caption, "rewritten", tries)
