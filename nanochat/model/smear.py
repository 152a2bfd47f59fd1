"""
The smear: every token's embedding takes up some of the embedding before it.

Pairs of tokens ("New" "York") are then one thing from the first layer on; without it attention must spend a head on
looking one token back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.config import SMEAR_CHANNELS
from nanochat.model.precision import Linear


class Smear(nn.Module):
    """x_t + scale sigmoid(gate(x_t)) x_(t-1): the gate reads the first channels, the scale begins at 0."""

    def __init__(self):
        super().__init__()
        self.gate = Linear(SMEAR_CHANNELS, 1)
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, earlier: Tensor | None = None, starts: Tensor | None = None) -> Tensor:
        """
        Normalised embeddings x (B, T, C) -> (B, T, C). `earlier` (B, 1, C) precedes them, zeros where nothing does;
        `starts` (B, T) is True at tokens that begin a document and take nothing over.
        """
        before = F.pad(x, (0, 0, 1, -1)) if earlier is None else torch.cat((earlier, x[:, :-1]), dim=1)
        share = self.scale[0] * torch.sigmoid(self.gate(x[..., :SMEAR_CHANNELS]))  # (B, T, 1)
        if starts is not None:
            share = share.masked_fill(starts.unsqueeze(-1), 0.0)
        return x + share * before
