"""A text for denoisers that do not read it."""

import torch

from components.conditioning.text import TextTokens

NO_TEXT = TextTokens(torch.ones(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
