"""
tinyshakespeare by characters: what 300 steps of 8,192 tokens make of 0.8 million weights, by optimizer and by model.

    python benchmarks/shakespeare.py                     three seeds of every setup, the text from the hub
    python benchmarks/shakespeare.py --text input.txt    the same from a file
    python benchmarks/shakespeare.py --sweep             one seed of every rate in RATES, from which the first was chosen

All setups read batches of 64 random windows of 128 characters, the same ones, with the same warm-up and fall of the
rate; the last tenth of the text is for validation, in such windows one after the other, each read from nothing. The
LSTM with memory is the exception, as recurrent networks are used: it reads 64 lanes of text in order, in training and
in validation, and never forgets; so it has more to go by. Writes benchmarks/results/shakespeare.json after every run
(what is in it is not run again) and shakespeare.svg.
"""

import argparse
import os
import platform
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib import rcParams
from matplotlib.figure import Figure
from torch import Tensor

from nanochat.data import hub
from nanochat.model import GPT, GPTConfig
from nanochat.model.char_rnn import CharRNN
from nanochat.runtime import World, core_seconds, read_json, write_json
from nanochat.train.config import MachineConfig, OptimConfig
from nanochat.train.loop import compiled, prepare
from nanochat.train.optim import MuonAdamW
from nanochat.train.schedule import lr_scale

STEPS, ROWS, LENGTH = 300, 64, 128
SCHEDULE = {"warmup": 20, "flat": 0.4, "final": 0.02}
EVERY = 50  # steps between validations
RESULTS = Path(__file__).parent / "results"

# (rate of the matrices, rate of embedding and head); the first is the one used, the others were tried at seed 0
RATES = {
    "GPT, Muon + AdamW": [(0.05, 0.01), (0.02, 0.01), (0.1, 0.01), (0.05, 0.03)],
    "GPT, AdamW": [(0.01, 0.01), (0.005, 0.005), (0.02, 0.02), (0.005, 0.02)],
    "LSTM, AdamW": [(0.01, 0.01), (0.005, 0.005), (0.02, 0.02)],
    "LSTM with memory, AdamW": [(0.01, 0.01), (0.005, 0.005), (0.02, 0.02)],
    "speedrun's GPT, its Muon + AdamW": [(0.05, 0.01), (0.02, 0.01), (0.02, 0.1)],
}
SPEEDRUN_MUON = {"orthogonal": "polar_express", "muoneq": True, "muon_plus": True, "normuon_beta": 0.9}


class Text:
    """The characters as numbers: `train` and `val`, and the batches of both."""

    def __init__(self, path: Path):
        text = path.read_text(encoding="utf-8")
        self.characters = sorted(set(text))
        ids = torch.tensor([self.characters.index(c) for c in text])
        self.train, self.val = ids.tensor_split([len(ids) * 9 // 10])

    def random(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets (ROWS, LENGTH) of windows anywhere in the training text."""
        starts = torch.randint(len(self.train) - LENGTH, (ROWS, 1), generator=generator)
        window = self.train[starts + torch.arange(LENGTH + 1)]
        return window[:, :-1], window[:, 1:]

    def lanes(self, ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (ROWS, LENGTH): the next window of ROWS lanes of `ids`, from the start after their end."""
        lanes = ids[: len(ids) // ROWS * ROWS].view(ROWS, -1)
        at = torch.arange(step * LENGTH, (step + 1) * LENGTH + 1) % lanes.size(1)
        return lanes[:, at[:-1]], lanes[:, at[1:]]


class Lstm:
    """The recurrent baseline under one AdamW; gradients clipped, and memory kept, as `nanochat.train.char_rnn` does."""

    def __init__(self, text: Text, matrix: float, table: float, seed: int, remembers: bool):
        self.text, self.rate, self.memory, self.remembers = text, matrix, None, remembers
        self.generator = torch.Generator().manual_seed(seed)
        self.model = CharRNN(len(text.characters), n_embd=224, n_layer=2).init_weights(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=0.0, fused=True)

    def loss(self, inputs: Tensor, targets: Tensor, memory) -> tuple[Tensor, tuple | None]:
        logits, memory = self.model(inputs, memory)
        memory = tuple(m.detach() for m in memory) if self.remembers else None
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), memory

    def step(self, step: int, scale: float):
        batch = self.text.lanes(self.text.train, step) if self.remembers else self.text.random(self.generator)
        loss, self.memory = self.loss(*batch, self.memory)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.param_groups[0]["lr"] = self.rate * scale
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validate(self) -> float:
        losses, memory = [], None
        for step in range(len(self.text.val) // ROWS // LENGTH):
            loss, memory = self.loss(*self.text.lanes(self.text.val, step), memory)
            losses.append(loss.item())
        return statistics.mean(losses)


class Transformer:
    """A GPT of four layers, 128 wide, in the dtype that is fastest here, compiled."""

    def __init__(
        self, text: Text, matrix: float, table: float, seed: int, arch: str = "seed", muon: dict | None = None
    ):
        self.text, self.generator = text, torch.Generator().manual_seed(seed)
        config = GPTConfig.from_depth(4, len(text.characters), LENGTH, n_embd=128, head_dim=64, arch=arch)
        self.model = GPT(config).init_weights(seed)
        prepare(self.model, MachineConfig(device="cpu"), World())
        torch._dynamo.reset()  # a model compiled before is another one
        self.forward = compiled(self.model)
        if muon is None:
            tables = [*self.model.wte.parameters(), *self.model.lm_head.parameters()]
            groups = [{"params": self.model.blocks.parameters(), "rate": matrix}, {"params": tables, "rate": table}]
            self.adamw = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        else:
            rates = {"matrix_lr": matrix, "embedding_lr": table, "unembedding_lr": table}
            self.muon, self.adamw = MuonAdamW(self.model, OptimConfig(**rates, **muon), World()), None

    def step(self, step: int, scale: float):
        self.forward(*self.text.random(self.generator)).backward()
        if self.adamw is None:
            self.muon.step(scale)
            self.muon.zero_grad()
        else:
            for group in self.adamw.param_groups:
                group["lr"] = group["rate"] * scale
            self.adamw.step()
            self.adamw.zero_grad()

    @torch.no_grad()
    def validate(self) -> float:
        steps = range(len(self.text.val) // ROWS // LENGTH)
        return statistics.mean(self.forward(*self.text.lanes(self.text.val, step)).item() for step in steps)


def start(name: str, *arguments):
    if name.startswith("LSTM"):
        return Lstm(*arguments, remembers="memory" in name)
    if name.startswith("speedrun"):
        return Transformer(*arguments, arch="speedrun", muon=SPEEDRUN_MUON)
    return Transformer(*arguments, muon={} if "Muon" in name else None)


def measure(name: str, rates: tuple[float, float], seed: int, text: Text, steps: int) -> dict:
    """Train one setup; its validation losses in nats a character, and what the steps after the first cost."""
    setup, curve, core_s = start(name, text, *rates, seed), [], 0.0
    for step in range(steps):
        begin = core_seconds()
        setup.step(step, lr_scale(step, steps, **SCHEDULE))
        core_s += core_seconds() - begin if step else 0.0  # the first compiles
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            curve.append((step + 1, round(setup.validate(), 4)))
    tokens = (steps - 1) * ROWS * LENGTH
    return {"setup": name, "matrix_lr": rates[0], "table_lr": rates[1], "seed": seed, "steps": steps,
            "val_loss": curve[-1][1], "curve": curve, "params": setup.model.num_params(),
            "dtype": str(getattr(setup.model, "compute_dtype", torch.float32)).removeprefix("torch."), "core_s": round(core_s, 1),
            "tok_per_core_s": round(tokens / core_s), "load": round(os.getloadavg()[0], 1)}  # fmt: skip


def draw(runs: list[dict], path: Path) -> None:
    """Validation loss over steps, a line a setup: the mean of the seeds, and a band over all of them."""
    rcParams["svg.hashsalt"] = "shakespeare"  # the same numbers, the same file
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, rates in RATES.items():
        chosen = [r for r in runs if r["setup"] == name and (r["matrix_lr"], r["table_lr"]) == rates[0]]
        if chosen:
            points = list(zip(*(r["curve"] for r in chosen), strict=True))
            steps = [point[0][0] for point in points]
            losses = [[loss for _, loss in point] for point in points]
            last = statistics.mean(losses[-1])
            axes.plot(steps, [statistics.mean(x) for x in losses], marker="o", label=f"{name}: {last:.3f}")
            axes.fill_between(steps, [min(x) for x in losses], [max(x) for x in losses], alpha=0.2)
    axes.set(xlabel="steps of 8,192 characters", ylabel="validation loss, nats a character", ylim=(1.4, 2.6))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="tinyshakespeare's input.txt; default: the hub's")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--setup", default="", help="only setups whose name begins so")
    parser.add_argument("--out", type=Path, default=RESULTS / "shakespeare.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = Text(options.text or hub.extra("tinyshakespeare.txt"))
    record = read_json(options.out) if options.out.exists() else {"runs": []}
    record["machine"] = {"cpu": platform.processor() or platform.machine(), "threads": 1, "torch": torch.__version__}
    done = {(r["setup"], r["matrix_lr"], r["table_lr"], r["seed"], r["steps"]) for r in record["runs"]}
    for name, rates in RATES.items():
        wanted = [(pair, 0) for pair in rates] if options.sweep else [(rates[0], s) for s in range(options.seeds)]
        for pair, seed in wanted if name.startswith(options.setup) else []:
            if (name, *pair, seed, options.steps) in done:
                continue
            run = measure(name, pair, seed, text, options.steps)
            record["runs"].append(run)
            write_json(options.out, record)
            print(f"{name:<34} {pair[0]:g}, {pair[1]:g} seed {seed}: {run['val_loss']:.3f}, {run['core_s']} core s, "
                  f"{run['tok_per_core_s']:,} tokens a core s", flush=True)  # fmt: skip
    draw([run for run in record["runs"] if run["steps"] == options.steps], options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
