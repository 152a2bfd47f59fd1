"""
The optimizer: Muon for the matrices of the blocks, AdamW for embedding and head, in one object, sharded over ranks.

    optimizer = MuonAdamW(model, OptimConfig(...), world())
    loss.backward()                          # loss: this rank's summed nats / the token count of ALL ranks
    optimizer.step(lr_scale=0.5)             # learning rates are the config's times lr_scale
    optimizer.zero_grad()

There is no wrapper around the model: gradients are summed over the ranks here. Every group of weights is one stack
whose dimension 0 (rows of an embedding; whole matrices of a shape) is dealt to the ranks in equal runs. A rank receives
the summed gradient of its run, keeps optimizer state for that run alone, updates it, and sends the new weights to all
(ZeRO stage 2, Rajbhandari et al. 2020). With one rank nothing is copied or sent.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from nanochat.runtime import UserError

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # maximises the slope at zero; singular values end in about [0.7, 1.2]


def newton_schulz(g: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """
    Replace every matrix U S V^T of a stack by about U V^T: all singular values become about 1. (Jordan 2024, Muon)

    The quintic a x + b x^3 + c x^5 pushes singular values towards 1; applied to the matrix itself it needs only matrix
    products. g (K, m, n) -> (K, m, n) in `dtype`, which is the precision of the products; bf16 is enough.
    """
    a, b, c = NEWTON_SCHULZ
    x = (g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:  # the Gram matrix of the short side is the small one
        x = x.mT
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Group:
    """
    Weights of one shape under one rule, dealt to ranks. Subclasses say what the stack is and how to update a run.

    self.lo, self.hi: the run of dimension 0 this rank owns; self.run: every rank's length, the last ones may own less.
    """

    def __init__(self, names: list[str], params: list[Tensor], length: int, world):
        self.names, self.params, self.world = names, params, world
        self.run = -(-length // world.size)
        self.lo = min(world.rank * self.run, length)
        self.hi = min(self.lo + self.run, length)

    def reduce(self):
        """Start to sum the gradient over ranks; afterwards self.grad is the sum for this rank's run."""
        self.work, self.grad = None, self.stack([p.grad for p in self.params])
        if self.world.size == 1:
            return
        full = pad(self.grad, self.run * self.world.size)
        if dist.get_backend() == "gloo":  # sum everything, keep the run; only NCCL is worth the split
            self.work = dist.all_reduce(full, async_op=True)
            self.grad = full[self.lo : self.hi]
        else:
            part = full.new_empty(self.run, *full.shape[1:])
            self.work = dist.reduce_scatter_tensor(part, full, async_op=True)
            self.grad, self.sent = part[: self.hi - self.lo], full

    def square(self) -> Tensor:
        """Wait for the summed gradient; -> the sum of its squares over this rank's run, fp32."""
        if self.work is not None:
            self.work.wait()
        return self.grad.float().square().sum()

    def update(self, **settings):
        """Update this rank's run, start to send it to all."""
        if self.hi > self.lo:
            self.rule(**settings)
        self.grad = self.sent = None
        if self.world.size > 1:
            own = self.stack([p.data for p in self.params], self.lo, self.hi)
            self.part = pad(own, self.run).contiguous()
            self.full = own.new_empty(self.run * self.world.size, *own.shape[1:])
            self.work = dist.all_gather_into_tensor(self.full, self.part, async_op=True)

    def finish(self):
        """Wait for the other ranks' weights and take them."""
        if self.world.size > 1:
            self.work.wait()
            self.take(self.full)
            self.work = self.full = self.part = None


class Matrices(Group):
    """Muon: the stack is (K, m, n), K matrices of a shape; a rank owns whole ones, since the rule mixes all entries."""

    def __init__(self, names, params, config, world, dtype):
        super().__init__(names, params, len(params), world)
        self.lr, self.default_momentum = config.matrix_lr, config.momentum
        m, n = params[0].shape
        self.dtype, self.scale = dtype, math.sqrt(max(1.0, m / n))
        self.momentum = params[0].new_zeros(self.hi - self.lo, m, n, dtype=torch.float32)

    def stack(self, tensors, lo=0, hi=None):
        own = tensors[lo:hi]
        return torch.stack(own) if own else tensors[0].new_empty(0, *tensors[0].shape)

    def take(self, full):
        torch._foreach_copy_([p.data for p in self.params], list(full[: len(self.params)].unbind(0)))

    def rule(self, lr_scale, momentum, count):
        momentum = self.default_momentum if momentum is None else momentum
        own = [p.data for p in self.params[self.lo : self.hi]]
        self.momentum.lerp_(self.grad, 1 - momentum)
        nesterov = torch.lerp(self.grad, self.momentum, momentum)
        direction = newton_schulz(nesterov, dtype=self.dtype).to(own[0].dtype)
        torch._foreach_add_(own, list(direction.unbind(0)), alpha=-self.lr * lr_scale * self.scale)

    def state(self):
        return {f"{name}/momentum": m for name, m in zip(self.names[self.lo : self.hi], self.momentum, strict=True)}

    def load(self, tensors):
        for name, momentum in zip(self.names[self.lo : self.hi], self.momentum, strict=True):
            key = f"{name}/momentum"
            if key not in tensors or tensors[key].shape != momentum.shape:
                raise UserError(f"optimizer state: {key} is missing or has another shape; is it another model's?")
            momentum.copy_(tensors[key])


class Rows(Group):
    """AdamW: the stack is one weight (V, C) itself; a rank owns a run of rows, since the rule treats entries alone."""

    def __init__(self, name, param, lr, config, world):
        super().__init__([name], [param], param.size(0), world)
        self.lr, self.betas, self.eps = lr, config.betas, config.eps
        shape = (self.hi - self.lo, *param.shape[1:])
        self.exp_avg = param.new_zeros(shape, dtype=torch.float32)
        self.exp_avg_sq = param.new_zeros(shape, dtype=torch.float32)

    def stack(self, tensors, lo=0, hi=None):
        return tensors[0][lo:hi]

    def take(self, full):
        self.params[0].data.copy_(full[: self.params[0].size(0)])

    def rule(self, lr_scale, momentum, count):
        own = self.params[0].data[self.lo : self.hi]
        beta1, beta2 = self.betas
        adamw(
            [own], [self.grad.contiguous()], [self.exp_avg], [self.exp_avg_sq], [],
            [torch.tensor(float(count), device=own.device)],  # steps done before this one
            fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=self.lr * lr_scale,
            weight_decay=0.0, eps=self.eps, maximize=False,
        )  # fmt: skip

    def state(self):
        rows = f"@rows{self.lo}:{self.hi}"
        both = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return {f"{self.names[0]}/{key}{rows}": t for key, t in both.items() if self.hi > self.lo}

    def load(self, tensors):
        for key, own in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            prefix, found = f"{self.names[0]}/{key}@rows", 0
            for name in tensors:
                if not name.startswith(prefix):
                    continue
                a, b = (int(n) for n in name.removeprefix(prefix).split(":"))
                lo, hi = max(a, self.lo), min(b, self.hi)
                if lo < hi and tensors[name].shape[1:] == own.shape[1:]:  # this piece overlaps mine
                    own[lo - self.lo : hi - self.lo] = tensors[name][lo - a : hi - a]
                    found += hi - lo
            if found != self.hi - self.lo:
                raise UserError(f"optimizer state: {prefix}{self.lo}:{self.hi} is not complete; is a rank's file "
                                "missing, or is it another model's?")  # fmt: skip


def pad(x: Tensor, length: int) -> Tensor:
    """Zeros after x along dimension 0 up to `length`; x itself if it is that long."""
    return x if len(x) == length else torch.cat((x, x.new_zeros(length - len(x), *x.shape[1:])))


class MuonAdamW:
    """
    Muon and AdamW over one model, without weight decay. `config` is an OptimConfig; with its `scale_by_width` the AdamW
    rates, tuned at width 768, are multiplied by (n_embd / 768)^-1/2. `world` has rank and size.
    """

    def __init__(self, model, config, world):
        named = dict(model.named_parameters())
        width = (model.config.n_embd / 768) ** -0.5 if config.scale_by_width else 1.0
        self.count = 0  # steps done
        self.params = list(named.values())
        self.groups = [
            Rows("wte.weight", named.pop("wte.weight"), width * config.embedding_lr, config, world),
            Rows("lm_head.weight", named.pop("lm_head.weight"), width * config.unembedding_lr, config, world),
        ]
        # Products in bf16 where the model's own are: there they are fast. Else fp32.
        dtype = torch.bfloat16 if model.compute_dtype == torch.bfloat16 else torch.float32
        shapes: dict[tuple, list[str]] = {}
        for name, p in named.items():
            shapes.setdefault(tuple(p.shape), []).append(name)
        for names in shapes.values():
            self.groups.append(Matrices(names, [named[n] for n in names], config, world, dtype))
        self.world = world

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0, momentum: float | None = None) -> float:
        """
        Sum gradients over ranks and update the weights on all of them; every rank must call it. Returns the norm of the
        summed gradient. Where that is not finite (one bad entry on one rank is enough) nothing is changed on any rank.
        """
        for group in self.groups:
            group.reduce()
        square = torch.stack([group.square() for group in self.groups]).sum()
        if self.world.size > 1:
            dist.all_reduce(square)
        norm = math.sqrt(square) if math.isfinite(square) else math.inf
        if math.isfinite(norm):
            for group in self.groups:
                group.update(lr_scale=lr_scale, momentum=momentum, count=self.count)
            for group in self.groups:
                group.finish()
            self.count += 1
        return norm

    def zero_grad(self):
        """Forget the gradients (their memory too: the next backward pass makes new ones)."""
        for p in self.params:
            p.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """
        This rank's share of the state, ready for safetensors: "<weight>/momentum" for its matrices,
        "<weight>/exp_avg@rows<a>:<b>" and exp_avg_sq for its rows, and "step", which all ranks have.
        """
        state = {"step": torch.tensor(self.count)}
        for group in self.groups:
            state |= group.state()
        return state

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]):
        """Take the state out of the union of all ranks' `state_tensors`, whatever number of ranks wrote them."""
        if "step" not in tensors:
            raise UserError("optimizer state: no step in it; is it another program's file?")
        self.count = int(tensors["step"])
        for group in self.groups:
            group.load(tensors)
