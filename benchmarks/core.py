"""CORE item by item and as `nanochat.evals` does it: what each way of leaving work out is worth.

    NANOCHAT_HUB=<mirror> python benchmarks/core.py            the mirror's bundle of 22 tasks; without it, the toy world's

"item by item" is the reference's way: the texts of one item in one forward pass, the logits of every position. The other ways
add up: logits of judged positions alone; the trunk of an item's texts read once; texts of many items batched by length.
Toy-sized model, random weights (time does not depend on them), with two vocabularies: the toy's, and one of 32,768 as
real scales have (trained here on the mirror's text, so only with it). All ways take turns, each once a round, in processor time of one
thread; medians over the rounds. Verdicts are compared item by item. Writes benchmarks/results/core.json.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nanochat.course import scale
from nanochat.data import TextShards, World, hub, list_shards, write_world
from nanochat.evals import core, forward, write_toy_bundle
from nanochat.evals.forward import Span
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import write_json
from nanochat.tokenizer import Tokenizer

POOL = 12       # items a task from which the examples are drawn; tasks show up to ten


def tokenizers() -> dict[str, Tokenizer]:
    settings = scale("toy").tokenizer
    shards = list_shards(write_world(Path(tempfile.mkdtemp()) / "data", seed=0, scale="smoke") / "text")
    made = {"toy": Tokenizer.train(TextShards(shards).read(0), settings.vocab_size, digits=settings.digits)}
    if hub.mirror():
        shards = TextShards(sorted((hub.mirror() / "karpathy/fineweb-edu-100b-shuffle").glob("*.parquet"))[:1])
        texts = [text for group in range(min(12, len(shards))) for text in shards.read(group)]
        made["real"] = Tokenizer.train(texts, 32768, digits=2)
    return made


def toy_model(vocab_size: int) -> GPT:
    shape = scale("toy").pretrain.model
    model = GPT(GPTConfig.from_depth(shape.depth, vocab_size, shape.sequence_len, n_embd=shape.n_embd, head_dim=shape.head_dim))
    model.init_weights(seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(weight.numel()))
    return model.eval()


def item_by_item(model: GPT, kind: str, spans: list[Span], pad: int) -> list[tuple[float, bool]]:
    """One item: one padded batch, the logits and losses of all its positions."""
    x = forward.padded([span.ids for span in spans], pad, torch.device("cpu"))                     # (B, T)
    with torch.inference_mode():
        logits = model(x)[:, :-1]                                                                  # (B, T − 1, V)
        losses = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(len(x), -1)
        hits = logits.argmax(-1) == x[:, 1:]
    own = [slice(span.start - 1, len(span.ids) - 1) for span in spans]
    return [(float(loss[s].mean()), bool(hit[s].all())) for loss, hit, s in zip(losses, hits, own)]


def one_call(model: GPT, spans: list[Span], pad: int, min_trunk: int) -> list[tuple[float, bool]]:
    """One item through the library, trunks shared from `min_trunk` tokens on."""
    kept, forward.MIN_TRUNK = forward.MIN_TRUNK, min_trunk
    [scores] = forward.score_spans(model, [spans], pad, batch_size=len(spans))
    forward.MIN_TRUNK = kept
    return [(score.loss, score.greedy) for score in scores]


def verdict(task: core.CoreTask, item: dict, scores: list[tuple[float, bool]]) -> bool:
    losses = [loss for loss, _ in scores]
    return scores[0][1] if task.kind == "language_modeling" else losses.index(min(losses)) == item["gold"]


def measure(model: GPT, tokenizer: Tokenizer, bundle: Path, count: int, rounds: int) -> dict:
    ways = {
        "item by item": lambda task, spans: [item_by_item(model, task.kind, item, tokenizer.bos) for item in spans],
        "judged logits": lambda task, spans: [one_call(model, item, tokenizer.bos, 1 << 30) for item in spans],
        "one trunk": lambda task, spans: [one_call(model, item, tokenizer.bos, forward.MIN_TRUNK) for item in spans],
        "batched by length": lambda task, spans: [[(s.loss, s.greedy) for s in item]
                                                  for item in forward.score_spans(model, spans, tokenizer.bos, 32)],
    }
    seconds, by_kind, tokens, agree = defaultdict(list), defaultdict(lambda: defaultdict(float)), 0, True
    prepared = []
    for task in core.read_bundle(bundle):
        pool = core.read_items(task, POOL)
        items = pool[:count]
        texts = [core.prompts(task, item, core.few_shot(pool, i, task.shots)) for i, item in enumerate(items)]
        rows = [[np.array([tokenizer.bos, *tokenizer.encode(text)]) for text in group] for group in texts]
        prepared.append((task, items, [core.spans(task, group, forward.max_length(model)) for group in rows]))
        tokens += sum(len(span.ids) for item in prepared[-1][2] for span in item)
    for _ in range(rounds):
        taken = defaultdict(float)
        for task, items, spans in prepared:
            verdicts = []
            for name, way in ways.items():
                began = time.process_time()
                scores = way(task, spans)
                taken[name] += time.process_time() - began
                by_kind[task.kind][name] += (time.process_time() - began) / rounds
                verdicts.append([verdict(task, item, score) for item, score in zip(items, scores)])
            agree &= all(v == verdicts[0] for v in verdicts)
        for name in ways:
            seconds[name].append(taken[name])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"vocab": model.config.vocab_size, "tasks": len(prepared), "items": sum(len(items) for _, items, _ in prepared), "tokens": tokens,
            "same_verdicts": agree, "seconds": {name: round(s, 3) for name, s in medians.items()},
            "times_faster": {name: round(medians["item by item"] / s, 2) for name, s in medians.items()},
            "times_faster_by_kind": {kind: round(s["item by item"] / s["batched by length"], 2) for kind, s in by_kind.items()},
            "all_seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4, help=f"items judged a task, at most {POOL}")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundles = {"toy": write_toy_bundle(Path(tempfile.mkdtemp()), World(0))}
    if hub.mirror():
        bundles["hub"] = hub.mirror() / "eval_bundle"
    runs = []
    for which, tokenizer in tokenizers().items():
        model = toy_model(tokenizer.vocab_size)
        for name, bundle in bundles.items():
            runs.append({"bundle": name, "tokenizer": which} | measure(model, tokenizer, bundle, options.items, options.rounds))
            print(runs[-1], flush=True)
    result = {"machine": {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine(), "threads": 1,
                          "torch": torch.__version__, "python": platform.python_version()},
              "rounds": options.rounds, "runs": runs}
    path = Path(__file__).parent / "results" / "core.json"
    write_json(path, result)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
