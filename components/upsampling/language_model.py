"""A causal language model of transformers with its tokenizer: loaded, saved, and continued in batches."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.errors import REASON_LENGTH, InputError, one_line

# Chooses the next token of each row from their scores (B, V).
Choose = Callable[[Tensor], list[int]]


@dataclass(frozen=True)
class LanguageModel:
    """folder: whose files `save` copies; None to write them from what is in memory."""

    model: Any
    tokenizer: Any
    folder: Path | None = None

    def __post_init__(self) -> None:
        without_kernel_advice()
        self.model.eval().requires_grad_(False)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @classmethod
    def load(
        cls, model: str | Path, *, revision: str | None = None, device: str = "cpu", ours: bool = False
    ) -> "LanguageModel":
        """Load from a folder or a hub id. ours: a folder that `save` wrote, to be saved again as it is.

        Raises InputError where there is no such model.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # our own progress is displayed
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
        from transformers.utils.logging import disable_progress_bar

        if self.folder is not None:
            shutil.copytree(self.folder, folder, copy_function=shutil.copyfile)
            return
        disable_progress_bar()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def continued(self, inputs: Sequence[Sequence[int]], choose: Choose, most: int) -> list[list[int]]:
        """The tokens that follow each input, as `choose` finds: to the end token, at most `most`.

        What follows an input does not depend on the others.
        """
        length = max(len(ids) for ids in inputs)
        ids = torch.full((len(inputs), length), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(inputs):  # padded on the left, as each row's last token is continued
            ids[row, length - len(tokens) :] = torch.tensor(tokens)
            mask[row, length - len(tokens) :] = 1
        device = self.model.device
        with torch.inference_mode():
            found = self.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                logits_processor=[_Chosen(choose)],
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return [row[length:].tolist() for row in found]


def without_kernel_advice() -> None:
    """Silence the advice to install kernels for short convolutions, which there are for GPUs only."""
    logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)


class _Chosen:
    """transformers' LogitsProcessor: leaves of the scores what `choose` takes."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        only = torch.full_like(scores, -torch.inf)
        only[range(len(scores)), self.choose(scores)] = 0
        return only
