"""
How weights begin. A weight's values depend on (seed, its name, its shape) alone: not on the device, the order of the
weights or other random draws.

Both schemes set the projections that write into the residual stream to zero, so that every block begins as the identity.
"normal" is the seed architecture's; "uniform" was tuned for the speedrun's, bounded where the normal has tails.
"""

import hashlib
import math

import torch
from torch import Tensor

from nanochat.model.config import GPTConfig


def initial(name: str, shape: torch.Size, config: GPTConfig, seed: int) -> Tensor:
    """The values at step 0 of the weight called `name`, fp32 on the CPU."""
    values, layers = torch.zeros(shape), torch.arange(config.n_layer) / max(config.n_layer - 1, 1)
    if name == "resid_lambdas":  # (L,) from 1.15 in the first layer to 1.05 in the last
        return 1.15 - 0.10 * layers
    if name == "x0_lambdas":  # (L,) from 0.20 to 0.05
        return 0.20 - 0.15 * layers
    if name == "backout_lambda":
        return values + 0.2
    if name == "smear.scale" or name.endswith("c_proj.weight"):
        return values
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    if name.endswith("gate.weight"):
        return values.uniform_(0, 0.02, generator=generator)
    if config.init == "uniform":
        return uniform(name, values, config.n_embd, generator)
    if name == "lm_head.weight":
        return values
    n_out, n_in = shape
    std = 1.0 if name == "wte.weight" else min(1.0, math.sqrt(n_out / n_in)) / math.sqrt(n_in)
    return values.normal_(0.0, std, generator=generator)


def uniform(name: str, values: Tensor, n_embd: int, generator: torch.Generator) -> Tensor:
    """The speedrun's scheme: matrices uniform with the spread of N(0, 1 / n_embd), the MLP's input at 0.4 of that."""
    if name == "wte.weight":
        return values.normal_(0.0, 0.8, generator=generator)
    if name == "lm_head.weight":
        return values.normal_(0.0, 0.001, generator=generator)
    bound = math.sqrt(3 / n_embd) * (0.4 if name.endswith("mlp.c_fc.weight") else 1.0)
    return values.uniform_(-bound, bound, generator=generator)
