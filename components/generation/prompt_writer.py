"""The language model that writes a long caption for a prompt.

Any transformers causal language model serves: a pretrained one that follows instructions, or a small one that
prompt_upsampler_fit.py made. Whether a caption still says what was asked is prompt_checks.py's to tell.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.errors import REASON_LENGTH, InputError, one_line

INSTRUCTION = "Describe in one sentence, with its colours, places and background, a picture of: {prompt}"
MOST_TOKENS = 96  # of an answer
MOST_PROMPT_TOKENS = 256  # tokens of a prompt; what is beyond is cut off
BATCH = 64  # prompts that are answered together


class PromptWriter:
    """A language model and its tokenizer. The same (prompt, seed) gives the same text."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path | None = None) -> None:
        """folder: whose files `save` copies; None to write them from what is in memory."""
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.folder = folder
        tokenizer.padding_side = "left"  # generation continues each row's last token
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(
        cls, model: str | Path, *, revision: str | None = None, device: str = "cpu", ours: bool = False
    ) -> "PromptWriter":
        """Load from a folder or a hub id. ours: a folder that `save` wrote, to be saved again as it is.

        Raises InputError where there is no such model.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # our own progress is displayed
        try:
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            network: Any = AutoModelForCausalLM.from_pretrained(model, revision=revision)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"upsampler '{model}' cannot be loaded ({reason}); give a folder or a hub id of a"
                " transformers causal language model"
            ) from error
        return cls(network.to(device), tokenizer, Path(model) if ours else None)

    def save(self, folder: Path) -> None:
        """Write the model's and the tokenizer's files into a new folder."""
        from transformers.utils import logging

        if self.folder is not None:
            shutil.copytree(self.folder, folder, copy_function=shutil.copyfile)
            return
        logging.disable_progress_bar()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float = 1.0
    ) -> list[str]:
        """One caption per prompt, sampled with the noise of its seed: the first line of the answer, or ""."""
        captions: list[str] = []
        for at in range(0, len(prompts), BATCH):
            captions += self._answers(prompts[at : at + BATCH], seeds[at : at + BATCH], temperature)
        return captions

    def _answers(self, prompts: Sequence[str], seeds: Sequence[int], temperature: float) -> list[str]:
        from transformers import LogitsProcessorList

        inputs = self.tokenizer(
            [self._model_prompt(prompt) for prompt in prompts],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self._instructed,  # a chat template writes them itself
        )
        ids, mask = inputs.input_ids.to(self.model.device), inputs.attention_mask.to(self.model.device)
        with torch.inference_mode():
            tokens = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                num_beams=1,
                logits_processor=LogitsProcessorList([_GumbelNoise(seeds, temperature)]),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        answers = self.tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)
        return [(answer.strip().splitlines() or [""])[0].strip() for answer in answers]

    @property
    def _instructed(self) -> bool:
        """Whether it answers instructions, given in its chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def _model_prompt(self, prompt: str) -> str:
        """The prompt in the form that the model was trained on."""
        plain = " ".join(prompt.split())
        ids = self.tokenizer(plain, add_special_tokens=False).input_ids
        if len(ids) > MOST_PROMPT_TOKENS:
            plain = self.tokenizer.decode(ids[:MOST_PROMPT_TOKENS])
        if not self._instructed:
            return plain_prompt(plain)
        turn = {"role": "user", "content": INSTRUCTION.format(prompt=plain)}
        text = self.tokenizer.apply_chat_template(
            [turn], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(text)


def plain_prompt(prompt: str) -> str:
    """The input of a model without a chat template, as prompt_upsampler_fit.py trains it."""
    return f"{prompt}\n"


class _GumbelNoise:
    """Samples by the Gumbel-max trick: with this noise on the logits, the largest is a sample of the softmax.

    Each row has its own stream, so a sample does not depend on the others of its batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.temperature = temperature
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=stream) for stream in self.streams])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() / self.temperature + gumbel.to(scores.device)
