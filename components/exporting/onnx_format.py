"""A one-step student as one ONNX graph: noise and text in, images out.

model.onnx        inputs noise, text, mask; output images
tokenizer.json    of a learned vocabulary; gives `text` and `mask`
text_encoder/     of a frozen encoder; gives `text`
README.md         the inputs, and how to run it
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.conditioning.text import LearnedText, TextTokens
from components.diffusion.denoiser import conditioned
from components.diffusion.samplers import get_noise
from components.errors import InputError
from components.generation.generator import Generator
from components.generation.model_folder import Model

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
INPUTS, OUTPUT = ("noise", "text", "mask"), "images"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
MOST_DIFFERENCE = 0.5 + 127.5 * 1e-4  # of a pixel in 0..255: its rounding, and 1e-4 of an image in [-1, 1]
EXAMPLE_PROMPTS = ("", "a red circle", "a blue square above a green star")
README = """# A Straightshot model, as ONNX

`{graph}` makes images of noise and captions in one network evaluation; the autoencoder is part of it.
Guidance {guidance} is absorbed. A prompt upsampler is not part of an export, so long prompts are best.

| | shape | |
|---|---|---|
| noise | (batch, {channels}, {side}, {side}) float32 | standard normal |
| text | (batch, length{features}) {dtype} | {text} |
| mask | (batch, length) bool | true where there is text |
| images | (batch, 3, {size}, {size}) float32 | in [-1, 1] |

Any batch; any length up to {most}.

    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession("{graph}")
{encode}
    noise = np.random.default_rng(0).standard_normal((1, {channels}, {side}, {side}), np.float32)
    (images,) = session.run(None, {{"noise": noise, "text": text, "mask": mask}})
    pixels = ((images + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)
"""
ENCODE_IDS = """    from tokenizers import Tokenizer
    encoded = Tokenizer.from_file("tokenizer.json").encode_batch(["a red circle"])
    text = np.array([e.ids for e in encoded])
    mask = np.array([e.attention_mask for e in encoded], bool)"""
ENCODE_FEATURES = """    # text: what the encoder in text_encoder/ makes of each caption alone, padded
    # mask: true where a caption has a token"""


class Student(nn.Module):
    """(noise, text, mask) -> images (B, 3, H, W) in [-1, 1]: the consistency function at t = 1, decoded."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.denoiser, self.autoencoder = model.network, model.denoiser, model.autoencoder

    def forward(self, noise: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        denoiser = conditioned(self.denoiser, TextTokens(text, mask))
        latents = denoiser.consistency(noise, noise.new_ones(noise.shape[0]))
        return self.autoencoder.decode(latents).clamp(-1, 1)


def require_onnx() -> None:
    """Raise InputError where a package is missing that makes or checks a graph."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"an export to ONNX needs {', '.join(missing)}, not installed here; install what the extra 'onnx'"
            " names: pip install '.[onnx]' in a checkout"
        )


def write_onnx(model: Model, folder: Path) -> None:
    """Write the graph of a one-step student into an existing, empty folder.

    Raises InputError for a teacher, or where onnxruntime computes other images than the Generator.
    """
    if model.card.kind == "flow":
        raise InputError(
            f"an ONNX graph holds one step, and this is a teacher of {model.card.steps}; export a student, or"
            " --to diffusers"
        )
    student = Student(model).eval()
    example = _example(model)
    shapes = ({0: "batch"}, {0: "batch", 1: "length"}, {0: "batch", 1: "length"})
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            student,
            example,
            dynamo=True,
            verbose=False,
            input_names=INPUTS,
            output_names=(OUTPUT,),
            dynamic_shapes=shapes,
        )
        assert program is not None  # as with dynamo=True
        program.save(folder / GRAPH)
    _compare(model, folder / GRAPH, example)
    _write_text_encoder(model, folder)
    (folder / "README.md").write_text(_readme(model), "utf-8")


def _example(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs to trace with, the Generator's: no size is 0 or 1, which would be taken for constants."""
    dit = model.card.dit
    text = model.encoder(EXAMPLE_PROMPTS)
    shape = (len(EXAMPLE_PROMPTS), dit.channels, dit.image_size, dit.image_size)
    return get_noise(shape, 0, "noise"), text.values, text.mask


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own deprecations and on axis names away."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(model: Model, graph: Path, example: tuple[Tensor, ...]) -> None:
    """Run the graph as a user would, on fewer images than it was traced with, beside the Generator."""
    import onnxruntime

    expected = Generator(model).generate(EXAMPLE_PROMPTS[:2], steps=1).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = {name: tensor[:2].numpy() for name, tensor in zip(INPUTS, example, strict=True)}
    (images,) = session.run(None, feed)
    difference = float(np.abs((images + 1) * 127.5 - expected).max())
    if not difference <= MOST_DIFFERENCE:
        raise InputError(
            f"the ONNX graph's pixels differ from the Generator's by up to {difference:.1f} of 255; try other"
            f" versions than onnxruntime {onnxruntime.__version__} and torch {torch.__version__}"
        )


def _write_text_encoder(model: Model, folder: Path) -> None:
    """What makes `text` and `mask`: an encoder, or a tokenizer that starts, cuts and pads a text itself."""
    if not isinstance(model.encoder, LearnedText):
        model.encoder.save(folder)
        return
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    start = (LearnedText.START, 1)
    tokenizer = Tokenizer.from_str(model.encoder.tokenizer.to_str())
    tokenizer.post_processor = TemplateProcessing(single=f"{LearnedText.START} $A", special_tokens=[start])
    tokenizer.enable_truncation(model.encoder.max_length)
    tokenizer.enable_padding(pad_id=0, pad_token=LearnedText.PAD)
    tokenizer.save(str(folder / TOKENIZER))


def _readme(model: Model) -> str:
    dit, learned = model.card.dit, isinstance(model.encoder, LearnedText)
    return README.format(
        graph=GRAPH,
        guidance=model.card.guidance,
        channels=dit.channels,
        side=dit.image_size,
        size=model.image_size,
        most=dit.text_length,
        features="" if learned else f", {dit.text_features}",
        dtype="int64" if learned else "float32",
        text="ids of tokenizer.json, padded with 0" if learned else "features of text_encoder/",
        encode=ENCODE_IDS if learned else ENCODE_FEATURES,
    )
