"""A captioner that was not trained: any tower tells images apart."""

import pytest
import torch

from components.captioning.architecture import make_model, make_processor, train_tokenizer
from components.captioning.captioner import Captioner


@pytest.fixture(scope="session")
def small_captioner() -> Captioner:
    """Of images of 32 pixels a side."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red circle on a blue background"], 300)
    model = make_model(
        tokenizer, image_size=32, channels=(8, 8, 16, 16), blocks=1, width=32, text_depth=1, heads=2
    )
    return Captioner(model, make_processor(tokenizer, 32))
