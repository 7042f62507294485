"""An upsampler that takes a second to fit, for tests of what is done with one."""

from collections.abc import Sequence

from components.captioning.config import PromptUpsamplerConfig
from components.generation.prompt_upsampler import PromptUpsampler
from components.generation.prompt_upsampler_fit import fit_prompt_upsampler


def small_upsampler(pairs: Sequence[tuple[str, str]], captions: int = 64) -> PromptUpsampler:
    """Fitted on so many captions of `pairs`: its words are made of theirs, and seldom the right ones."""
    config = PromptUpsamplerConfig(width=16, depth=1, heads=1, vocabulary=300)
    training = config.training.model_copy(update={"images": captions})
    return fit_prompt_upsampler(pairs, config.model_copy(update={"training": training}), seed=0)
