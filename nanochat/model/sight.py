"""
Who sees whom: the causal mask, narrowed by a layer's window and by the borders of documents.

    sight = Sight(positions, documents)           # once a forward pass
    y = sight.attend(q, k, v, mask, window=512)   # in every layer

A token at position t sees the positions s with t - window <= s <= t, and of those the ones in its own document. The
same is written three times below, for three kinds of kernel; `choose_path` finds out at the start of a run which of
them works, is right and is the fastest kind on this device.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nanochat.model.attention import attend, attend_fused, attend_manual
from nanochat.runtime import say

PATHS = ("varlen", "flex", "mask")  # fastest first
UNAVAILABLE = (ImportError, AttributeError, RuntimeError, TypeError, ValueError)  # what kernels of another device raise


class Sight:
    """
    What each token of one forward pass may see.

    positions (B or 1, T) of the tokens; documents (B, S) numbers the document of every slot that can be seen, or None;
    path is one of PATHS. Masks are made once for each window, not once a layer.
    """

    def __init__(self, positions: Tensor, documents: Tensor | None = None, path: str = "mask"):
        self.positions, self.documents, self.path = positions, documents, path
        self.masks: dict[int | None, Tensor] = {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, window: int | None, scale: float) -> Tensor:
        """As `attention.attend`; `mask` (B, 1, T, S) is the cache's causal one, None where S = T and all begin at 0."""
        if window is not None and window >= k.size(2):
            window = None
        if window is None and self.documents is None:
            return attend(q, k, v, mask, scale)
        if mask is None and self.path != "mask":
            path = attend_varlen if self.path == "varlen" else attend_flex
            return path(q, k, v, window, self.documents, scale)
        if window not in self.masks:
            self.masks[window] = visible(self.positions, k.size(2), window, self.documents)
        return attend(q, k, v, self.masks[window], scale)


def visible(positions: Tensor, slots: int, window: int | None, documents: Tensor | None) -> Tensor:
    """The mask itself: positions (B or 1, T), documents (B, S) or None -> bool (B or 1, 1, T, S), True = seen."""
    slot = torch.arange(slots, device=positions.device)
    back = positions[:, :, None] - slot  # (B, T, S): how many tokens ago the slot was read
    seen = back >= 0 if window is None else (back >= 0) & (back <= window)
    if documents is not None:
        own = documents.gather(1, positions.expand(len(documents), -1))  # (B, T)
        seen = seen & (own[:, :, None] == documents[:, None, :])
    return seen[:, None]


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, window: int | None, documents: Tensor | None,
                  scale: float) -> Tensor:  # fmt: skip
    """
    FlashAttention over sequences laid end to end: a document, or a row, is a sequence. bf16 or fp16 on a GPU.

    Skips what is not seen instead of masking it: a window of 512 costs a window of 512.
    """
    from torch.nn.attention.varlen import varlen_attn

    B, H, T, D = q.shape
    if documents is None:
        starts = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=q.device)
    else:
        from nanochat.model.documents import sequence_starts  # here, for it loads torch's compiler: seconds

        starts = sequence_starts(documents)
    flat = [x.transpose(1, 2).reshape(B * T, -1, D) for x in (q, k, v)]
    reach = (-1 if window is None else window, 0)
    y = varlen_attn(*flat, starts, starts, T, T, scale=scale, window_size=reach, enable_gqa=H != k.shape[1])
    return y.view(B, T, H, D).transpose(1, 2)


def attend_flex(q: Tensor, k: Tensor, v: Tensor, window: int | None, documents: Tensor | None, scale: float) -> Tensor:
    """PyTorch's FlexAttention: a kernel compiled for this mask, skipping its empty blocks. Any dtype, needs Triton."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b, h, t, s):
        near = (s <= t) if window is None else (s <= t) & (t - s <= window)
        return near if documents is None else near & (documents[b, t] == documents[b, s])

    # Alone, uncompiled, it would write out every score; inside a compiled model it is compiled with it.
    kernel = torch.compile(flex_attention) if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
    B, H, T, _ = q.shape
    block_mask = create_block_mask(seen, B if documents is not None else None, None, T, T, device=q.device)
    return kernel(q, k, v, block_mask=block_mask, scale=scale, enable_gqa=H != k.shape[1])


def choose_path(device: torch.device, dtype: torch.dtype, config) -> str:
    """
    Which of PATHS to train a model of this config on; on a GPU one line says which.

    There every path is tried, forward and backward, on a small problem; the first that equals the masked one is taken.
    With FlashAttention-3 installed it first takes the place of torch's own flash kernels.
    """
    if device.type != "cuda":
        return "mask"
    windows, documents = {config.window(i) for i in range(config.n_layer)} != {None}, config.document_start is not None
    right = partial(agrees, device=device, dtype=dtype, config=config)
    kernel = "FlashAttention-3" if use_flash3(device, right) else "PyTorch's"
    if not windows and not documents:
        say(f"attention: {kernel}, causal")
        return "mask"
    for path, function in (("varlen", attend_varlen), ("flex", attend_flex)):
        if right(function, window=96 if windows else None, documents=documents):
            say(f"attention: {kernel}, {path}: what windows and documents hide is skipped")
            return path
    say(f"attention: {kernel}, masked: neither varlen nor flex works here, so windows save no time")
    return "mask"


def use_flash3(device: torch.device, right: Callable) -> bool:
    """Let torch use an installed FlashAttention-3 (Hopper GPUs) if it is `right` there; False where it is not."""
    if torch.cuda.get_device_capability(device)[0] != 9:
        return False
    try:
        from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl

        activate_flash_attention_impl("FA3")
    except UNAVAILABLE:
        return False
    if right(attend_causal, window=None, documents=False):
        return True
    restore_flash_attention_impl()
    return False


def attend_causal(q, k, v, window: None, documents: None, scale: float) -> Tensor:
    return attend_fused(q, k, v, scale=scale)


def agrees(function: Callable, *, device: torch.device, dtype: torch.dtype, config, window: int | None,
           documents: bool) -> bool:  # fmt: skip
    """Does this path run here, forward and backward, and equal masked attention to the dtype's precision?"""
    B, T, D = 2, 256, config.head_dim
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, n, T, D) for n in (config.n_head, config.n_kv_head, config.n_kv_head, config.n_head)]
    q, k, v, up = (torch.randn(s, generator=generator).to(device, dtype) for s in shapes)
    numbers = torch.arange(T, device=device).expand(B, T) // 100 if documents else None
    mask = visible(torch.arange(T, device=device)[None], T, window, numbers)
    try:
        found = tried(partial(function, window=window, documents=numbers, scale=D**-0.5), q, k, v, up)
    except UNAVAILABLE:
        return False
    wanted = tried(partial(attend_manual, mask=mask, scale=D**-0.5), *(x.float() for x in (q, k, v, up)))
    tolerance = max(3 * torch.finfo(dtype).eps, 2e-3)  # one token more or less in the window is an error of 0.1
    return all((f.float() - w).norm() <= tolerance * w.norm() for f, w in zip(found, wanted, strict=True))


def tried(function: Callable, q: Tensor, k: Tensor, v: Tensor, up: Tensor) -> list[Tensor]:
    """The output of an attention function and its gradients with respect to q, k and v."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    y = function(q, k, v)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), up)]
