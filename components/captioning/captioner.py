"""A captioner: images in, one caption each out.

Any transformers image-text-to-text model serves, from a folder or by id, pretrained or fitted by fit.py: all
go through `AutoProcessor` and `AutoModelForImageTextToText`, and the chat template where there is one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from components.captioning.cleaning import without_cut_sentence
from components.captioning.config import GREEDY, SamplingConfig
from components.captioning.kinds import CaptionKind
from components.errors import REASON_LENGTH, InputError, one_line

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

BATCH_SIZE = 64  # images generated together, by default
RETRY = SamplingConfig()  # how a greedy captioner draws in another attempt


class Captioner:
    """A loaded model and its processor.

    batch_size: images generated together, cut in order. It touches the last bits of the scores alone, so a
    caption does not depend on it but where two tokens tie to rounding. sampling: how tokens are drawn.
    """

    keyed_by, asked = "key", 0  # see record_captions.WritesCaptions

    def __init__(
        self, model: Any, processor: Any, *, batch_size: int = BATCH_SIZE, sampling: SamplingConfig = GREEDY
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.batch_size, self.sampling = batch_size, sampling
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.padding_side = "left"  # generation continues each row's last token

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = BATCH_SIZE,
        sampling: SamplingConfig = GREEDY,
    ) -> "Captioner":
        """Load from a folder or a hub id. dtype: float32, bfloat16 or float16, of weights and arithmetic.

        Raises InputError where there is no such model or it is not an image-text-to-text one.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()  # our own progress bar is used
        try:
            processor = AutoProcessor.from_pretrained(model, revision=revision)
            network: Any = AutoModelForImageTextToText.from_pretrained(
                model, revision=revision, dtype=getattr(torch, dtype)
            )
        except (OSError, ValueError, KeyError) as error:
            reason = one_line(error, REASON_LENGTH)
            raise InputError(
                f"captioner '{model}' cannot be loaded ({reason}); give a folder or a hub id of a "
                "transformers image-text-to-text model"
            ) from error
        return cls(network.to(device), processor, batch_size=batch_size, sampling=sampling)

    def caption(
        self,
        images: Sequence[Image.Image],
        kind: CaptionKind,
        keys: Sequence[str] | None = None,
        *,
        prompts: Sequence[str] | None = None,
        attempt: int = 0,
    ) -> list[str]:
        """One caption of that kind per image, as the model writes it (cleaning.py makes it usable).

        Of a caption that was cut at the kind's limit, whole sentences stay.

        images: RGB, of any size. keys: what the draws of each image's caption depend on, its record's key;
        needed unless the captioner is greedy. prompts: of each image, by default the kind's. attempt: another
        one draws with another seed, a greedy captioner then as RETRY does. Raises ValueError where their
        number differs.
        """
        from components.captioning.sampling import row_seed

        sampling = RETRY if attempt and self.sampling.greedy else self.sampling
        if not sampling.greedy and (keys is None or len(keys) != len(images)):
            raise ValueError(
                f"{len(images)} images and {len(keys or ())} keys: sampled captions need a key for each image"
            )
        prompts = [kind.prompt] * len(images) if prompts is None else prompts
        seeds = (
            [row_seed(sampling.seed, key, kind.name, attempt) for key in keys or ()]
            if not sampling.greedy
            else []
        )
        captions: list[str] = []
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            samplers = _samplers(sampling, seeds[batch])
            captions += self._caption_batch(images[batch], prompts[batch], kind.max_tokens, samplers)
        return captions

    def _caption_batch(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        max_tokens: int,
        samplers: "LogitsProcessorList",
    ) -> list[str]:
        inputs = self._inputs(images, prompts).to(self.model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self.model.dtype)
        with torch.inference_mode():
            # The sampler's noise makes the argmax a draw: `generate` itself stays deterministic.
            tokens = self.model.generate(
                **inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=samplers,
            )
        if not self.model.config.is_encoder_decoder:  # else the prompt is not part of the output
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        ended = self._ended(tokens)
        return [t if end else without_cut_sentence(t) for t, end in zip(texts, ended, strict=True)]

    def _ended(self, tokens: torch.Tensor) -> list[bool]:
        """Which rows of generated tokens the model itself ended; the others were cut at the limit."""
        end = self.model.generation_config.eos_token_id  # one, several or none
        ends = end if isinstance(end, list) else [end] * (end is not None)
        ended: list[bool] = torch.isin(tokens, tokens.new_tensor(ends)).any(1).tolist()
        return ended

    def _inputs(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        """The processor's tensors for every image and its prompt."""
        # One list per conversation: else a model that takes several images mixes the rows' images.
        nested = [[image] for image in images]
        texts = {prompt: self._text(prompt) for prompt in dict.fromkeys(prompts)}
        rows = [texts[prompt] for prompt in prompts]
        return self.processor(images=nested, text=rows, padding=True, return_tensors="pt")

    def _text(self, prompt: str) -> str:
        """What the model reads: an image and the prompt."""
        if not getattr(self.processor, "chat_template", None):
            return f"{getattr(self.processor, 'image_token', '')}{prompt}"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text


def _samplers(sampling: SamplingConfig, seeds: Sequence[int]) -> "LogitsProcessorList":
    """What `generate` applies to the scores of one batch. seeds: of its rows."""
    from transformers import LogitsProcessorList

    from components.captioning.sampling import MinPGumbel

    return LogitsProcessorList([] if sampling.greedy else [MinPGumbel(sampling.min_p, seeds)])
