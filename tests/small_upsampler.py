"""An upsampler that takes a second to fit, for tests of what is done with one."""

from collections.abc import Sequence

from components.upsampling.partial_texts import RecordCaptions
from components.upsampling.prompt_upsampler import PromptUpsampler
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from components.upsampling.prompt_upsampler_fit import fit_prompt_editor


def small_upsampler(pairs: Sequence[tuple[str, str]], captions: int = 64) -> PromptUpsampler:
    """Fitted on so many captions of (short, long) `pairs`; nothing is checked: what it adds is anything."""
    config = PromptUpsamplerConfig(width=16, depth=2, heads=1, vocabulary=300)
    training = config.training.model_copy(update={"images": captions, "batch_size": 32})
    records = [RecordCaptions(f"{number:08x}", long, short) for number, (short, long) in enumerate(pairs)]
    editor = fit_prompt_editor(records, config.model_copy(update={"training": training}), seed=0)
    return PromptUpsampler(editor)
