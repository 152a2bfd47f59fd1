"""
What one training step needs in memory, counted before there is a machine to run it.

    needed = memory(config, OptimConfig(), rows=16, micro_batches=2, ranks=8, dtype=torch.bfloat16, compiled=True)
    needed.peak / 1e9

Weights, gradients and optimizer state are sizes of tensors that the model and the optimizer themselves make. What
autograd keeps is not worked out by formula either: the real model runs on fake tensors, which have a shape and a
dtype and no memory (PyTorch's FakeTensorMode), and every allocation is added up. So a new architecture needs no new
line here. torch.compile keeps less than plain execution does: by how much is measured, see COMPILED.
"""

import weakref
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat.model import GPT, GPTConfig
from nanochat.model.loss import fits, head_loss
from nanochat.runtime import World
from nanochat.train.config import OptimConfig
from nanochat.train.optim import MuonAdamW

# What is left when torch.compile has fused the small operations: the share of the activations, and bytes per entry of
# the logits in bf16 and fp32. Measured by benchmarks/plan.py on a CPU, at models other than those it is tested on.
COMPILED = {"activations": 0.9, torch.bfloat16: 6, torch.float32: 12}


class Allocations(TorchDispatchMode):
    """Bytes held by tensors that came to be while this is active: `alive` now, `peak` at most."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._known.update(storages((args, kwargs)))  # what comes in was there before, or has been counted
        out = func(*args, **(kwargs or {}))
        for storage in storages(out):
            if storage not in self._known:  # a view shares the storage of what it views, and costs nothing
                self._known.add(storage)
                self.alive += storage.nbytes()
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._free, storage.nbytes())
        return out

    def _free(self, size: int):
        self.alive -= size


def storages(tree) -> list[torch.UntypedStorage]:
    """The memory behind every tensor in nested tuples, lists and dicts."""
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@dataclass(frozen=True)
class Memory:
    """One rank's training step, in bytes."""

    weights: int
    gradients: int
    optimizer: int  # this rank's share of the state
    activations: int  # what the backward pass of one micro-batch reads again, up to the last hidden state
    logits: int  # head and loss of one micro-batch, at their worst moment
    update: int  # copies that the optimizer step makes for a moment
    accumulates: bool  # several micro-batches: gradients are there already when activations are
    engine: int = 0  # GRPO: the copy of the weights that samples (its cache takes what is left, see Engine)

    @property
    def peak(self) -> int:
        """The worse of two moments: the middle of the last micro-batch, and the optimizer step."""
        middle = self.activations + self.logits + (self.gradients if self.accumulates else 0)
        return self.weights + self.optimizer + self.engine + max(middle, self.gradients + self.update)


def memory(
    config: GPTConfig,
    optim: OptimConfig,
    *,
    rows: int,
    micro_batches: int = 1,
    ranks: int = 1,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Memory:
    """A step of `micro_batches` × `rows` rows of config.sequence_len tokens on each of `ranks` ranks."""
    weights, state, update = _fixed(config, optim, ranks, dtype)
    one, two = _kept(config, 1, dtype), _kept(config, 2, dtype)
    activations = (two - one) * (COMPILED["activations"] if compiled else 1)
    if not fits(rows * config.sequence_len, config.vocab_size):
        logits = _chunked(config, rows, dtype)
    elif compiled:
        logits = rows * COMPILED[dtype] * config.sequence_len * config.vocab_size
    else:
        logits = rows * (_head(config, 2, dtype) - _head(config, 1, dtype))
    copies = 2 * one - two  # what does not grow with rows: weights cast to `dtype`
    return Memory(weights=weights, gradients=weights, optimizer=state, activations=int(copies + rows * activations),
                  logits=logits, update=update, accumulates=micro_batches > 1)  # fmt: skip


def size(tensors) -> int:
    """Bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


@lru_cache(maxsize=64)
def _fixed(config: GPTConfig, optim: OptimConfig, ranks: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Bytes of weights, of rank 0's optimizer state (the largest share), and of what an update allocates."""
    with FakeTensorMode():
        model = GPT(config)
        model.compute_dtype = dtype
        weights = size(model.parameters())
        state = size(MuonAdamW(model, optim, World(size=ranks)).state_tensors().values())
        optimizer = MuonAdamW(model, optim, World())
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        with Allocations() as seen:  # MuonAdamW.step without its look at the norm: fake tensors have no values
            for group, bucket in optimizer.order:
                group.send(bucket)
            for group in optimizer.groups:
                group.receive()
            for group in optimizer.groups:
                group.update(lr_scale=1.0, momentum=None, decay_scale=1.0, count=0)
        if ranks > 1:  # each updates its share, and has the sums of its share beside the gradients that it sent
            return weights, state, (weights + seen.peak) // ranks
        return weights, state, seen.peak


@lru_cache(maxsize=64)
def _kept(config: GPTConfig, rows: int, dtype: torch.dtype) -> int:
    """Bytes that the forward pass of `rows` rows keeps for the backward pass, up to the last hidden state; uncompiled."""
    with FakeTensorMode():
        model, idx = _model_and_rows(config, rows, dtype)
        with Allocations() as seen:
            hidden = model.hidden(idx)  # bound to a name: it holds the graph, and the graph what it keeps
            kept = seen.alive
            del hidden
    return kept


@lru_cache(maxsize=64)
def _head(config: GPTConfig, rows: int, dtype: torch.dtype) -> int:
    """Bytes that head and loss take on top of that at their worst moment; the same for one layer as for many."""
    shallow = replace(config, n_layer=1)
    with FakeTensorMode():
        model, idx = _model_and_rows(shallow, rows, dtype)
        with Allocations() as seen:
            model(idx, idx, reduction="sum").backward()
        return seen.peak - _kept(shallow, rows, dtype)


@lru_cache(maxsize=64)
def _chunked(config: GPTConfig, rows: int, dtype: torch.dtype) -> int:
    """The same where the loss is taken in chunks; compiled or not: one chunk is small beside the activations."""
    N, shape = rows * config.sequence_len, (config.vocab_rows, config.n_embd)
    with FakeTensorMode():
        x = torch.empty(N, config.n_embd, dtype=dtype, requires_grad=True)  # (N, C)
        weight = torch.empty(shape, requires_grad=True)  # (V, C)
        targets = torch.zeros(N, dtype=torch.long)
        with Allocations() as seen:
            head_loss(x, weight[: config.vocab_size], targets, config.softcap, reduction="sum").backward()
        return seen.peak


def _model_and_rows(config: GPTConfig, rows: int, dtype: torch.dtype) -> tuple[GPT, torch.Tensor]:
    model = GPT(config)
    model.compute_dtype = dtype
    return model, torch.zeros(rows, config.sequence_len, dtype=torch.long)
