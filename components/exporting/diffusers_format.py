"""A folder that `DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)` loads.

    model_index.json, pipeline.py   the pipeline
    model/                          a model folder without its upsampler, and the modules that run it

It has its own code, so a machine that loads it needs diffusers and transformers, and no Straightshot.
"""

import json
from pathlib import Path

from components.exporting.code_copy import copy_code
from components.generation.model_folder import Model, save_model

PIPELINE, MODEL, MODEL_CODE = "pipeline", "model", "straightshot_model"
README = """# A Straightshot model

A text-to-image model by Straightshot, as a pipeline of diffusers. Its code lies in this folder: read it, then

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained("THIS FOLDER", trust_remote_code=True)
    pipe(["a red circle", "a blue square"], seed=0).images

It needs `pip install diffusers transformers einops pydantic`. Images have {size} × {size} pixels; by default
num_inference_steps is {steps} and guidance_scale {guidance}. The same seed gives the same images as
`straightshot generate --as-is`: a prompt upsampler is not part of an export, so long prompts are best.
"""


def write_diffusers(model: Model, folder: Path) -> None:
    """Write the model into an existing, empty folder."""
    (folder / MODEL).mkdir()
    save_model(folder / MODEL, model)
    copy_code("exporting.diffusers_model", folder / MODEL, MODEL_CODE)
    copy_code("exporting.diffusers_pipeline", folder, PIPELINE)
    index = {
        "_class_name": [PIPELINE, "StraightshotPipeline"],
        MODEL: [MODEL_CODE, "StraightshotModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    card, size = model.card, model.image_size
    text = README.format(steps=card.steps, guidance=card.guidance, size=size)
    (folder / "README.md").write_text(text, "utf-8")
