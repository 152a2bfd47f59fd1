"""Where documents begin in a batch of rows: what FlashAttention over sequences laid end to end wants to know."""

import torch
from torch import Tensor


@torch.compiler.disable  # how many documents there are is known from the data alone
def sequence_starts(documents: Tensor) -> Tensor:
    """
    Where each document of documents (B, T) begins in the rows laid end to end, and where the last one ends: int32.

    The end is repeated (documents without tokens) up to a power of two, so that compiled code sees few lengths.
    """
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = first.flatten().nonzero().flatten().int()
    room = 1 << len(starts).bit_length()
    return torch.cat((starts, starts.new_full((room - len(starts),), documents.numel())))
