"""
The optimizer: Muon for the matrices of the blocks, AdamW for all other weights, in one object, sharded over ranks.

    optimizer = MuonAdamW(model, OptimConfig(...), world())    # after model.to(...): the weights move into its banks
    with optimizer.overlap():                # the last backward pass of a step; without it `step` sends all gradients
        loss.backward()                      # loss: this rank's summed nats / the token count of ALL ranks
    optimizer.step(lr_scale=0.5)             # learning rates are the config's times lr_scale
    optimizer.zero_grad()

There is no wrapper around the model: gradients are summed over the ranks here. Every group of weights lies in one
tensor, its bank, of which each rank owns one run (rows of an embedding; whole matrices of a shape), and the model's
weights are views of the banks. A rank receives the summed gradients of its runs, keeps optimizer state for them alone,
updates them in place, and sends them to all (ZeRO stage 2, Rajbhandari et al. 2020). With one rank nothing is sent.
"""

import math
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw

from nanochat.runtime import UserError
from nanochat.train import muon


class Group:
    """
    Weights under one rule, in one bank: as many runs of equal length along dimension 0 as there are ranks, one each.

    self.own: this rank's run, without the padding that the last runs may end in. self.buckets: the weights whose
    gradients are summed over ranks in one call, in the order in which the backward pass reaches them.
    """

    def __init__(self, bank: Tensor, own: Tensor, buckets: list[list[Tensor]], world):
        self.bank, self.own, self.buckets, self.world = bank, own, buckets, world
        self.sums = []  # for each bucket that was sent: this rank's run of the sum, and what to wait for

    def intact(self) -> bool:
        """Whether the model's weights still are views of the bank."""
        bank = self.bank.untyped_storage().data_ptr()
        return all(p.untyped_storage().data_ptr() == bank for bucket in self.buckets for p in bucket)

    def send(self, bucket: list[Tensor]):
        """Start to sum the bucket's gradients over ranks. They leave the weights; one that backward did not reach is 0."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        for p in bucket:
            p.grad = None
        self.sums.append(self.world.sum_runs(self.joined(grads)))

    def receive(self):
        """Wait for the sums of all buckets: self.grads, this rank's runs of them (padding is 0)."""
        for _, work in self.sums:
            if work is not None:
                work.wait()
        self.grads, self.sums = [run for run, _ in self.sums], []

    def update(self, **settings):
        """Update this rank's run, start to send it to all."""
        if len(self.own):
            self.rule(**settings)
        self.grads = None
        self.work = self.world.gather_runs(self.bank)

    def finish(self):
        """Wait for the other ranks' weights."""
        if self.work is not None:
            self.work.wait()


class Matrices(Group):
    """
    Muon: the bank is (K, m, n), K matrices of a shape; a rank owns whole ones, since the rule mixes all entries.

    Matrices are dealt like cards, the last of the model first: each bucket holds one of every rank's.
    """

    def __init__(self, names, params, config, world, dtype):
        names, params, size = names[::-1], params[::-1], world.size
        run, (m, n) = -(-len(params) // size), params[0].shape
        bank = params[0].new_zeros(run * size, m, n)
        for k, p in enumerate(params):
            place = bank[k % size * run + k // size]
            place.copy_(p.data)
            p.data = place
        self.names = names[world.rank :: size]
        own = bank[world.rank * run :][: len(self.names)]
        super().__init__(bank, own, [params[k : k + size] for k in range(0, len(params), size)], world)
        self.config, self.dtype, self.scale = config, dtype, math.sqrt(max(1.0, m / n))
        self.momentum = torch.zeros_like(own, dtype=torch.float32)
        self.moments = {"momentum": self.momentum}
        if config.normuon_beta is not None:
            self.moments["second_moment"] = muon.mean_square(self.momentum)  # zeros, (K, m, 1) or (K, 1, n)

    def joined(self, grads):
        return pad(torch.stack(grads), self.world.size) if self.world.size > 1 else grads[0][None]

    def rule(self, lr_scale, momentum, decay_scale, count):
        config = self.config
        momentum = config.momentum if momentum is None else momentum
        x = torch.cat(self.grads[: len(self.own)])  # (K, m, n): what the rule works in, not one copy more
        self.grads = None
        self.momentum.lerp_(x, 1 - momentum)
        x.lerp_(self.momentum, momentum)  # Nesterov
        if config.muoneq:
            x = muon.equal_rows(x)
        orthogonal = muon.polar_express if config.orthogonal == "polar_express" else muon.newton_schulz
        x = orthogonal(x, dtype=self.dtype).to(self.own.dtype)
        if config.muon_plus:
            x = muon.full_norm(x)
        if config.normuon_beta is not None:
            x = muon.equal_variance(x, self.moments["second_moment"], config.normuon_beta)
        if decay := config.matrix_decay * decay_scale:
            x = x.add(muon.cautious(x, self.own), alpha=decay)
        self.own.add_(x, alpha=-config.matrix_lr * lr_scale * self.scale)

    def state(self):
        moments = self.moments.items()
        return {f"{name}/{key}": t for key, own in moments for name, t in zip(self.names, own, strict=True)}

    def load(self, tensors):
        for key, own in self.state().items():
            if key not in tensors or tensors[key].shape != own.shape:
                raise UserError(f"optimizer state: {key} is missing or has another shape; is it another model's?")
            own.copy_(tensors[key])


class Rows(Group):
    """AdamW: the bank is one weight (V, C) itself; a rank owns a run of rows, since the rule treats entries alone."""

    def __init__(self, name, param, lr, betas, weight_decay, eps, world):
        length = len(param)
        run = -(-length // world.size)
        self.name, self.lo = name, min(world.rank * run, length)
        self.hi = min(self.lo + run, length)
        bank = pad(param.data, run * world.size)
        param.data = bank[:length]
        super().__init__(bank, bank[self.lo : self.hi], [[param]], world)
        self.lr, self.betas, self.weight_decay, self.eps = lr, betas, weight_decay, eps
        self.exp_avg = torch.zeros_like(self.own, dtype=torch.float32)
        self.exp_avg_sq = torch.zeros_like(self.own, dtype=torch.float32)

    def joined(self, grads):
        return pad(grads[0], len(self.bank))

    def rule(self, lr_scale, momentum, decay_scale, count):
        beta1, beta2 = self.betas
        adamw(
            [self.own], [self.grads[0][: len(self.own)]], [self.exp_avg], [self.exp_avg_sq], [],
            [torch.tensor(float(count), device=self.own.device)],  # steps done before this one
            fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=self.lr * lr_scale,
            weight_decay=self.weight_decay, eps=self.eps, maximize=False,
        )  # fmt: skip

    def state(self):
        rows = f"@rows{self.lo}:{self.hi}"
        both = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return {f"{self.name}/{key}{rows}": t for key, t in both.items() if self.hi > self.lo}

    def load(self, tensors):
        for key, own in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            prefix, found = f"{self.name}/{key}@rows", 0
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
        place = {p: i for i, p in enumerate(self.params)}
        buckets = [(group, bucket) for group in self.groups for bucket in group.buckets]
        # The one order in which all ranks send: as the backward pass gets ready with them, from the head to the embedding.
        self.order = sorted(buckets, key=lambda pair: -min(place[p] for p in pair[1]))
        self.sent = 0  # of these, in this step

    @contextmanager
    def overlap(self, last: bool = True):
        """
        Around a backward pass; where it is the last before `step`, a bucket of gradients is sent to the ranks that own
        it as soon as the pass is ready with all of it and with those before it, and the pass goes on. What it did not
        reach is sent at the end. With one rank, or where it is not the last, this does nothing.
        """
        if self.world.size == 1 or not last:
            yield
            return
        missing = [len(bucket) for _, bucket in self.order]

        def arrived(i: int):
            missing[i] -= 1
            while self.sent < len(missing) and missing[self.sent] <= 0:
                self._send_next()

        hooks = [p.register_post_accumulate_grad_hook(lambda _, i=i: arrived(i))
                 for i, (_, bucket) in enumerate(self.order) for p in bucket]  # fmt: skip
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._send_all()

    def _send_next(self):
        group, bucket = self.order[self.sent]
        group.send(bucket)
        self.sent += 1

    def _send_all(self):
        while self.sent < len(self.order):
            self._send_next()

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0, momentum: float | None = None, decay_scale: float = 1.0) -> float:
        """
        Sum gradients over ranks and update the weights on all of them; every rank must call it. `lr_scale` multiplies
        all learning rates, `decay_scale` the matrices' weight decay; `momentum` is Muon's. Returns the norm of the
        summed gradient. Where that is not finite (one bad entry on one rank is enough) nothing is changed on any rank.
        The weights' gradients are gone afterwards. Raises UserError when a weight is no longer in its bank.
        """
        if not all(group.intact() for group in self.groups):
            raise UserError("optimizer: the model's weights were moved, or a newer optimizer has them; make a new one")
        self._send_all()
        self.sent = 0
        for group in self.groups:
            group.receive()
        square = self.world.sum(get_total_norm([run for group in self.groups for run in group.grads]).float().square())
        norm = math.sqrt(square) if math.isfinite(square) else math.inf
        if math.isfinite(norm):
            for group in self.groups:
                group.update(lr_scale=lr_scale, momentum=momentum, decay_scale=decay_scale, count=self.count)
            for group in self.groups:
                group.finish()
            self.count += 1
        return norm

    def zero_grad(self):
        """Forget the gradients, those on their way too (and their memory: the next backward pass makes new ones)."""
        for group in self.groups:
            group.receive()
            group.grads = None
        self.sent = 0
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
