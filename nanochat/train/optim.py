"""
The optimizer: Muon for the matrices of the blocks, AdamW for all other weights, in one object, sharded over ranks.

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
from nanochat.train import muon


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
        m, n = params[0].shape
        self.config, self.dtype, self.scale = config, dtype, math.sqrt(max(1.0, m / n))
        self.momentum = params[0].new_zeros(self.hi - self.lo, m, n, dtype=torch.float32)
        self.moments = {"momentum": self.momentum}
        if config.normuon_beta is not None:
            self.moments["second_moment"] = muon.mean_square(self.momentum)  # zeros, (K, m, 1) or (K, 1, n)

    def stack(self, tensors, lo=0, hi=None):
        own = tensors[lo:hi]
        return torch.stack(own) if own else tensors[0].new_empty(0, *tensors[0].shape)

    def take(self, full):
        torch._foreach_copy_([p.data for p in self.params], list(full[: len(self.params)].unbind(0)))

    def rule(self, lr_scale, momentum, decay_scale, count):
        config = self.config
        momentum = config.momentum if momentum is None else momentum
        own = [p.data for p in self.params[self.lo : self.hi]]
        self.momentum.lerp_(self.grad, 1 - momentum)
        x = torch.lerp(self.grad, self.momentum, momentum)  # Nesterov: (K, m, n)
        if config.muoneq:
            x = muon.equal_rows(x)
        orthogonal = muon.polar_express if config.orthogonal == "polar_express" else muon.newton_schulz
        x = orthogonal(x, dtype=self.dtype).to(own[0].dtype)
        if config.muon_plus:
            x = muon.full_norm(x)
        if config.normuon_beta is not None:
            x = muon.equal_variance(x, self.moments["second_moment"], config.normuon_beta)
        if decay := config.matrix_decay * decay_scale:
            x = x.add(muon.cautious(x, torch.stack(own)), alpha=decay)
        torch._foreach_add_(own, list(x.unbind(0)), alpha=-config.matrix_lr * lr_scale * self.scale)

    def state(self):
        own = self.names[self.lo : self.hi]
        return {f"{name}/{key}": t for key, stack in self.moments.items() for name, t in zip(own, stack, strict=True)}

    def load(self, tensors):
        for key, own in self.state().items():
            if key not in tensors or tensors[key].shape != own.shape:
                raise UserError(f"optimizer state: {key} is missing or has another shape; is it another model's?")
            own.copy_(tensors[key])


class Rows(Group):
    """AdamW: the stack is one weight (V, C) itself; a rank owns a run of rows, since the rule treats entries alone."""

    def __init__(self, name, param, lr, betas, weight_decay, eps, world):
        super().__init__([name], [param], param.size(0), world)
        self.lr, self.betas, self.weight_decay, self.eps = lr, betas, weight_decay, eps
        shape = (self.hi - self.lo, *param.shape[1:])
        self.exp_avg = param.new_zeros(shape, dtype=torch.float32)
        self.exp_avg_sq = param.new_zeros(shape, dtype=torch.float32)

    def stack(self, tensors, lo=0, hi=None):
        return tensors[0][lo:hi]

    def take(self, full):
        self.params[0].data.copy_(full[: self.params[0].size(0)])

    def rule(self, lr_scale, momentum, decay_scale, count):
        own = self.params[0].data[self.lo : self.hi]
        beta1, beta2 = self.betas
        adamw(
            [own], [self.grad.contiguous()], [self.exp_avg], [self.exp_avg_sq], [],
            [torch.tensor(float(count), device=own.device)],  # steps done before this one
            fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=self.lr * lr_scale,
            weight_decay=self.weight_decay, eps=self.eps, maximize=False,
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


def adamw_rule(name: str, config, n_embd: int) -> tuple[float, tuple[float, float], float] | None:
    """
    (learning rate, betas, weight decay) of a weight that AdamW updates, after its name; None for Muon's.

    The rates of the tables and the head, tuned at width 768, shrink with the width where `scale_by_width` says so. The
    rules of the speedrun's own weights are nanochat's (March 2026): a mean over more steps for what is noisy or rare.
    """
    width = (n_embd / 768) ** -0.5 if config.scale_by_width else 1.0
    if name == "wte.weight":
        return width * config.embedding_lr, config.embedding_betas or config.betas, config.embedding_decay
    if name == "lm_head.weight":
        return width * config.unembedding_lr, config.unembedding_betas or config.betas, config.unembedding_decay
    if name.endswith("value.table.weight"):
        return width * config.embedding_lr / 2, (0.8, 0.995), 0.01
    if name == "resid_lambdas":  # a hundredth: they multiply the whole stream, layer after layer
        return config.scalar_lr / 100, (0.8, 0.95), 0.05
    if name == "x0_lambdas":
        return config.scalar_lr, (0.96, 0.95), 0.0
    if name.startswith("smear.") or name == "backout_lambda":
        return 0.2, (0.8, 0.95), 0.0
    return None


class MuonAdamW:
    """Muon and AdamW over one model. `config` is an OptimConfig, `world` has rank and size."""

    def __init__(self, model, config, world):
        self.params, self.groups = list(model.parameters()), []
        self.world, self.count = world, 0  # steps done
        # Products in bf16 where the model's own are: there they are fast. Else fp32.
        dtype = torch.bfloat16 if model.compute_dtype == torch.bfloat16 else torch.float32
        shapes: dict[tuple, list[str]] = {}
        named = dict(model.named_parameters())
        for name, p in named.items():
            if (rule := adamw_rule(name, config, model.config.n_embd)) is not None:
                self.groups.append(Rows(name, p, *rule, config.eps, world))
            else:
                shapes.setdefault(tuple(p.shape), []).append(name)
        for names in shapes.values():
            self.groups.append(Matrices(names, [named[n] for n in names], config, world, dtype))

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0) -> float:
        """
        Sum gradients over ranks and update the weights on all of them; every rank must call it. `lr_scale` multiplies
        all learning rates, `decay_scale` the matrices' weight decay; `momentum` is Muon's. Returns the norm of the
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
                group.update(lr_scale=lr_scale, momentum=momentum, decay_scale=decay_scale, count=self.count)
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
        This rank's share of the state, ready for safetensors: "<weight>/momentum" (and second_moment) for its matrices,
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
