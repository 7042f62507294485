"""The checks of an upsampled prompt, as a table: does what was asked for still stand in the caption?

To add a check, add one entry to CHECKS: `train.upsampler.checks` names those that are asked, in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.upsampling.content_words import content_words, forms_of, stands_in, words_of
from components.upsampling.upsampler_card import CheckName, UpsamplerCard

if TYPE_CHECKING:
    from components.judge.causal_text import ShortTexts
    from components.toyworld.statements import Statements

# None: nothing against it, the next check is asked. False: refused. True: right, no further check is asked.
Verdict = bool | None


@dataclass
class PromptChecks:
    """The checks of an upsampler's card.

    judge_folder: of an open_clip model, read when it is first asked; None: similarity is not checked.
    """

    card: UpsamplerCard = field(default_factory=UpsamplerCard)
    judge_folder: Path | None = None

    def refused_by(self, prompts: Sequence[str], captions: Sequence[str]) -> list[str | None]:
        """The name of the first check that refuses each caption, None where none does."""
        results: list[str | None] = [None] * len(prompts)
        open_rows = list(range(len(prompts)))
        for name in self.card.checks:
            verdicts = CHECKS[name](
                self, [prompts[row] for row in open_rows], [captions[row] for row in open_rows]
            )
            for row, verdict in zip(open_rows, verdicts, strict=True):
                if verdict is False:
                    results[row] = name
            open_rows = [row for row, v in zip(open_rows, verdicts, strict=True) if v is None]
        return results

    def in_plain_words(self, prompt: str) -> str:
        """The prompt; on the toy world in a caption's words, where its own are others."""
        if "toy_statements" not in self.card.checks:
            return prompt
        from components.toyworld.free_text import in_plain_words

        return in_plain_words(prompt)

    def is_complete(self, prompt: str) -> bool:
        """Whether the prompt says all: by the toy world's parser where that is asked, else by its length."""
        if not self.card.keep_complete:
            return False
        if "toy_statements" in self.card.checks:
            from components.toyworld.captions import states_all

            stated = _statements(prompt)
            return stated is not None and states_all(stated)
        return self.card.complete_words is not None and len(words_of(prompt)) >= self.card.complete_words

    @cached_property
    def judged_texts(self) -> "ShortTexts | None":
        """Features by the judge of the folder."""
        from components.judge.causal_text import ShortTexts
        from components.judge.judge import LOCAL, Judge

        if self.judge_folder is None:
            return None
        return ShortTexts(Judge.load(f"{LOCAL}{self.judge_folder}"))


def words_stand(checks: PromptChecks, prompts: Sequence[str], captions: Sequence[str]) -> list[Verdict]:
    """Whether every content word of a prompt stands in its caption."""
    del checks
    return [_lets_pass(_words_stand(*pair)) for pair in zip(prompts, captions, strict=True)]


def is_similar(checks: PromptChecks, prompts: Sequence[str], captions: Sequence[str]) -> list[Verdict]:
    """Whether the judge finds the texts at least as similar as the card asks."""
    judged, threshold = checks.judged_texts, checks.card.min_similarity
    if judged is None or threshold is None or not prompts:
        return [None] * len(prompts)
    features = judged.features([*prompts, *captions])
    values = cosines(features[: len(prompts)], features[len(prompts) :])
    return [_lets_pass(value >= threshold) for value in values]


def statements_survive(
    checks: PromptChecks, prompts: Sequence[str], captions: Sequence[str]
) -> list[Verdict]:
    """Whether the caption states all that the prompt states, and does not contradict itself (toy world).

    A prompt that the parser does not understand is left to the other checks, with a caption that it does.
    """
    from components.toyworld.refinement import is_consistent, refines

    del checks
    verdicts: list[Verdict] = []
    for prompt, caption in zip(prompts, captions, strict=True):
        asked, written = _statements(prompt), _statements(caption)
        if written is None or not is_consistent(written):
            verdicts.append(False)
        else:
            verdicts.append(None if asked is None else refines(written, asked))
    return verdicts


CHECKS: dict[CheckName, Callable[[PromptChecks, Sequence[str], Sequence[str]], list[Verdict]]] = {
    "toy_statements": statements_survive,
    "words": words_stand,
    "similarity": is_similar,
}


def cosines(features: Any, others: Any) -> list[float]:
    """Of unit vectors (N, D), row by row."""
    import numpy as np

    return [float(value) for value in np.einsum("nd,nd->n", features, others)]


@lru_cache(maxsize=4096)  # a prompt is asked for with each of its captions
def _statements(text: str) -> "Statements | None":
    from components.toyworld.parsing import parse

    return parse(text)


def _words_stand(prompt: str, caption: str) -> bool:
    forms = forms_of(words_of(caption))
    return all(stands_in(word, forms) for word in content_words(prompt))


def _lets_pass(good: bool) -> Verdict:
    return None if good else False
