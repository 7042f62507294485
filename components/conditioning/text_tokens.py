"""A batch of encoded texts, as the denoiser, its losses and its samplers take them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class TextTokens:
    """values: ids (B, L) or features (B, L, D); mask: (B, L) bool, True where there is text."""

    values: Tensor
    mask: Tensor

    @classmethod
    def of_features(cls, rows: Sequence[Tensor]) -> "TextTokens":
        """Texts of features (L_i, D) each, padded with zeros to the longest, in float32."""
        lengths = torch.tensor([len(row) for row in rows])
        values = pad_sequence(list(rows), batch_first=True).float()  # of a half-precision model: in half
        return cls(values, torch.arange(values.shape[1]) < lengths[:, None])

    def to(self, device: torch.device) -> "TextTokens":
        """On the device; the host does not wait for the copy to a GPU."""
        behind = device.type != "cpu"
        return TextTokens(
            self.values.to(device, non_blocking=behind), self.mask.to(device, non_blocking=behind)
        )

    def repeat(self, batch: int, length: int) -> "TextTokens":
        """This single text (1, l) for a whole batch, padded to (batch, length)."""
        short = length - self.mask.shape[1]
        tail = (0, 0) * (self.values.ndim - 2)
        values, mask = F.pad(self.values, (*tail, 0, short)), F.pad(self.mask, (0, short))
        return TextTokens(values.expand(batch, *values.shape[1:]), mask.expand(batch, length))

    def where(self, keep: Tensor, other: "TextTokens") -> "TextTokens":
        """These texts where `keep` (B,) is True, those of `other` elsewhere; both of one length."""
        shape = (-1, *([1] * (self.values.ndim - 1)))
        return TextTokens(
            torch.where(keep.view(shape), self.values, other.values),
            torch.where(keep.view(-1, 1), self.mask, other.mask),
        )

    def joined(self, other: "TextTokens") -> "TextTokens":
        """Both batches as one, these first."""
        return TextTokens(torch.cat([self.values, other.values]), torch.cat([self.mask, other.mask]))
