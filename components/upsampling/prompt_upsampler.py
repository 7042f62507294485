"""Prompt upsampling: a user's few words rewritten as a long caption that still says all of them.

A model that was trained on long captions generates best from them, so prompts are upsampled before images
are generated (DALL·E 3, Betker 2023). What is written is checked (prompt_checks.py); a caption that is
refused is sampled again, and after some tries the prompt stays as it is. So does one that says all already.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from components.randomness import SampleSeed, derive_seed, sample_seeds
from components.upsampling.caption_session import CaptionSession
from components.upsampling.edit_tokens import is_edit_tokenizer
from components.upsampling.language_model import LanguageModel
from components.upsampling.prompt_checks import PromptChecks
from components.upsampling.prompt_editor import PromptEditor
from components.upsampling.prompt_writer import PromptWriter
from components.upsampling.upsampler_card import UpsamplerCard

CARD, WRITER, JUDGE = "card.json", "language_model", "judge"  # in an upsampler's folder
SAMPLES_GROW_BY = 2  # captions of each try for one of the try before: 1, 2, 4, 8
NO_ANSWER = "no answer"  # in place of a check's name: the language model wrote nothing

Writer = PromptEditor | PromptWriter


@dataclass(frozen=True)
class UpsampledPrompt:
    """A prompt and what is generated from in its place.

    kept: as it was, as it says all already, or no upsampler was asked. rewritten: the caption passed every
    check, or is a prompt that says all in plain words. refused: none did, and the caption is the prompt (on
    the toy world in plain words); refused_by: the check that refused the last one.
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

    def begin(self) -> "UpsamplingSession":
        """Prompts that are upsampled side by side, to which others can be added on the way."""
        return UpsamplingSession(self)

    def upsample_each(self, prompts: Sequence[str], seeds: Sequence[SampleSeed]) -> list[UpsampledPrompt]:
        """What to generate from for each prompt, each caption sampled with the noise of its (seed, index)."""
        session = self.begin()
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            session.add(row, prompt, seed)
        results: dict[int, UpsampledPrompt] = {}
        while len(session):
            results |= session.advance()
        return [results[row] for row in range(len(prompts))]


@dataclass
class _OpenPrompt:
    """One prompt on its way. asked: as it came; prompt: in plain words. captions: of the attempt (from 0), by
    the number of their sample.
    """

    asked: str
    prompt: str
    seed: SampleSeed
    attempt: int = 0
    captions: dict[int, str] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many of its attempt."""
        return SAMPLES_GROW_BY**self.attempt


class UpsamplingSession:
    """Prompts that are upsampled side by side: each result is a function of its own (prompt, seed, index).

    The tries after the first sample ever more captions at once, and take the first that passes.
    """

    def __init__(self, upsampler: PromptUpsampler) -> None:
        self.checks, card = upsampler.checks, upsampler.checks.card
        self._captions: CaptionSession = upsampler.writer.begin(
            temperature=card.temperature, min_p=card.min_p
        )
        self._open: dict[Any, _OpenPrompt] = {}
        self._kept: dict[Any, UpsampledPrompt] = {}

    def __len__(self) -> int:
        """How many prompts are not done."""
        return len(self._open) + len(self._kept)

    @property
    def open_keys(self) -> list[Any]:
        """Of the prompts that are not done."""
        return [*self._open, *self._kept]

    def add(self, key: Any, prompt: str, seed: SampleSeed) -> None:
        """Let a prompt be upsampled beside the others. key: names it in what `advance` returns."""
        plain = self.checks.in_plain_words(prompt)
        if not plain.strip() or self.checks.is_complete(plain):
            self._kept[key] = UpsampledPrompt(prompt, plain, "kept" if plain == prompt else "rewritten")
        else:
            self._open[key] = _OpenPrompt(prompt, plain, seed)
            self._sample(key)

    def retain(self, is_wanted: Callable[[Any], bool]) -> None:
        """Give up the prompts whose key is not wanted."""
        self._kept = {key: kept for key, kept in self._kept.items() if is_wanted(key)}
        self._open = {key: one for key, one in self._open.items() if is_wanted(key)}
        self._captions.retain(lambda sample: sample[0] in self._open)

    def advance(self) -> dict[Any, UpsampledPrompt]:
        """Go on by one step; the prompts that it ended."""
        results, self._kept = self._kept, {}
        ended: list[Any] = []
        for (key, sample), caption in self._captions.advance().items():
            one = self._open[key]
            one.captions[sample] = caption
            if len(one.captions) == one.samples:
                ended.append(key)
        for key, result in zip(ended, self._checked([self._open[key] for key in ended]), strict=True):
            one = self._open[key]
            if result.outcome == "rewritten" or result.tries == self.checks.card.tries:
                results[key] = result
                del self._open[key]
            else:
                one.attempt, one.captions = one.attempt + 1, {}
                self._sample(key)
        return results

    def _sample(self, key: Any) -> None:
        """Begin the captions of an attempt."""
        one = self._open[key]
        for sample in range(one.samples):
            seed = derive_seed(one.seed.seed, "upsample", one.seed.index, one.attempt, sample)
            self._captions.add((key, sample), one.prompt, seed)

    def _checked(self, prompts: Sequence[_OpenPrompt]) -> list[UpsampledPrompt]:
        """Of each attempt the first caption that passes, else the last one's refusal."""
        captions = [one.captions[sample] for one in prompts for sample in range(one.samples)]
        texts = [one.prompt for one in prompts for _ in range(one.samples)]
        refusals = iter(zip(captions, self.checks.refused_by(texts, captions), strict=True))
        results = []
        for one in prompts:
            tried = [_result(one, caption, refusal) for caption, refusal in islice(refusals, one.samples)]
            results.append(next((result for result in tried if result.outcome == "rewritten"), tried[-1]))
        return results


def _result(one: _OpenPrompt, caption: str, refusal: str | None) -> UpsampledPrompt:
    tries = one.attempt + 1
    if not caption or refusal is not None:
        return UpsampledPrompt(one.asked, one.prompt, "refused", tries, refusal if caption else NO_ANSWER)
    return UpsampledPrompt(one.asked, caption, "rewritten", tries)
