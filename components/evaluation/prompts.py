"""The prompts of an evaluation: the toy world's held-out ones, or the captions of held-out records."""

from collections.abc import Iterable
from dataclasses import dataclass

from components.shards.writer import Sample
from components.toyworld.prompts import ToyPrompt, make_prompts


@dataclass(frozen=True)
class EvalPrompt:
    """A held-out prompt; `toy` says what its image must show, where the toy world's scorer can tell."""

    text: str
    toy: ToyPrompt | None = None

    @property
    def form(self) -> str | None:
        """short, partial, rephrased, long or geneval."""
        return self.toy.form if self.toy else None

    @property
    def category(self) -> str | None:
        """Of GenEval's, for prompts of the form geneval."""
        return self.toy.category if self.toy else None


def toy_prompts(per_form: int, seed: int) -> list[EvalPrompt]:
    """The toy world's held-out prompts, `per_form` of each form."""
    return [EvalPrompt(prompt.text, prompt) for prompt in make_prompts(per_form, seed)]


def caption_prompts(held_out: Iterable[Sample], most: int) -> list[EvalPrompt]:
    """The short captions of held-out records, each text once, at most `most` of them."""
    texts = dict.fromkeys(str(sample.meta["caption_short"]) for sample in held_out)
    return [EvalPrompt(text) for text in list(texts)[:most] if text.strip()]
