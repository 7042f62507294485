"""Prompt upsampling: a user's few words rewritten in the form of the long captions.

A model that was trained on long captions generates best from them, so prompts are upsampled before images
are generated (DALL·E 3, Betker 2023). Any transformers causal language model serves: a pretrained one that
follows instructions, or a small one that prompt_upsampler_fit.py made.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.errors import REASON_LENGTH, InputError, one_line
from components.randomness import derive_seed

INSTRUCTION = "Describe in one sentence, with its colours, places and background, a picture of: {prompt}"
MOST_TOKENS = 96  # of an answer
MOST_PROMPT_TOKENS = 256  # tokens of a prompt; what is beyond is cut off
TEMPERATURE = 0.7


class PromptUpsampler:
    """A language model and its tokenizer. The same (prompt, seed, index) gives the same text."""

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
    ) -> "PromptUpsampler":
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

    def __call__(self, prompts: Sequence[str], *, seed: int = 0, first: int = 0) -> list[str]:
        """One caption per prompt, sampled with the noise of (seed, first + i); an empty one stays empty."""
        from transformers import LogitsProcessorList

        rows = [row for row, prompt in enumerate(prompts) if prompt.strip()]
        if not rows:
            return list(prompts)
        inputs = self.tokenizer(
            [self._model_prompt(prompts[row]) for row in rows],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not self._instructed,  # a chat template writes them itself
        )
        ids, mask = inputs.input_ids.to(self.model.device), inputs.attention_mask.to(self.model.device)
        noise = _GumbelNoise([derive_seed(seed, "upsample", first + row) for row in rows])
        with torch.inference_mode():
            tokens = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                num_beams=1,
                logits_processor=LogitsProcessorList([noise]),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        answers = self.tokenizer.batch_decode(tokens[:, ids.shape[1] :], skip_special_tokens=True)
        captions = list(prompts)
        for row, answer in zip(rows, answers, strict=True):
            captions[row] = (answer.strip().splitlines() or [""])[0].strip() or prompts[row]
        return captions

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

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=stream) for stream in self.streams])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() / TEMPERATURE + gumbel.to(scores.device)
