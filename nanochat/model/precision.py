"""
Precision: fp32 where numbers are kept, something faster where they are multiplied.

Weights are stored in fp32 (the optimizer adds small updates to them) and cast to the activations' dtype when they are
used. So there is no autocast: the dtype of a result can be read from the code. `inference_copy` of the model stores the
weights in the compute dtype once, and the cast below then costs nothing.

Training may go one format further down, see `fp8`: a matrix whose `fp8` is set is multiplied in float8 wherever gradients
are taken. Evaluation and generation are not, so what is measured is the model that is saved.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.fp8 import MULTIPLE, fp8_linear


class Linear(nn.Linear):
    """A matrix without bias whose weight is cast to the input's dtype: (..., n_in) -> (..., n_out)."""

    fp8 = False  # see `GPT.use_fp8`

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self):
        pass  # `GPT.init_weights` is the one place where weights get values

    def forward(self, x: Tensor) -> Tensor:
        if self.fp8 and torch.is_grad_enabled() and x.numel() // x.size(-1) % MULTIPLE == 0:
            return fp8_linear(x, self.weight)
        return F.linear(x, self.weight.to(x.dtype))


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, in fp32, without learned gains; dtype as the input's."""
    return F.rms_norm(x.float(), (x.size(-1),), eps=eps).to(x.dtype)


def softcap(z: Tensor, cap: float) -> Tensor:
    """cap * tanh(z / cap) in fp32: the identity near zero, never beyond +-cap (Gemma 2's logit cap)."""
    return cap * torch.tanh(z.float() / cap)
