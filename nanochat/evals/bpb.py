"""Bits per byte: the loss of a language model in a unit that no tokenizer can bend.

    bits_per_byte(model, [(inputs, targets), …], tokenizer.token_bytes)      # 8.0 is no model at all, ~0.8 a good small one

Loss per token falls when tokens get shorter, whatever the model knows. So the nats of all counted targets are added up and
divided by the number of raw bytes those targets stand for.
"""

from collections.abc import Iterable
from math import inf, log

import numpy as np
import torch

from nanochat.evals.forward import device_of, evaluating
from nanochat.runtime import world


def bits_per_byte(model, batches: Iterable[tuple], token_bytes: np.ndarray) -> float:
    """Σ nats / (ln 2 · Σ bytes) over the counted targets of all batches and, under torchrun, of all ranks.

    batches: (inputs, targets) pairs of integer arrays or tensors, (B, T) each, of any B and T.
    token_bytes: (V,) the byte length of every token id, 0 for special tokens. Targets that are special, or -1 (masked), are
    left out of both sums. Returns +inf when no byte is counted.
    """
    device = device_of(model)
    lengths = torch.as_tensor(token_bytes, dtype=torch.int64, device=device)                # (V,)
    exact = torch.float64 if device.type != "mps" else torch.float32                        # MPS has no float64
    nats = torch.zeros((), dtype=exact, device=device)
    total_bytes = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model):
        for inputs, targets in batches:
            inputs, targets = (torch.as_tensor(a, dtype=torch.int64, device=device) for a in (inputs, targets))
            losses = model(inputs, targets, reduction="none").view(-1)                      # (B·T,) fp32, 0 where masked
            targets = targets.reshape(-1)
            here = torch.where(targets >= 0, lengths[targets.clamp(min=0)], 0)              # (B·T,) bytes of each target
            nats += torch.where(here > 0, losses, 0).to(exact).sum()
            total_bytes += here.sum()
    nats, total_bytes = map(sum, zip(*world().gather((float(nats), int(total_bytes)))))
    return nats / (log(2) * total_bytes) if total_bytes else inf
