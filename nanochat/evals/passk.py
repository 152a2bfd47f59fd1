"""What more samples buy: pass@k (is any of k right?) and maj@k (is the commonest answer of k right?).

Both are computed from n ≥ k samples of a problem as the exact mean over all ways to draw k of the n: no sampling noise
is added on top of the samples themselves.

    pass_at_k(n=16, c=4, k=1)                     # 0.25
    maj_at_k(["7", "7", "9", None], "7", k=3)     # 1.0
    sample_curve(engine, task, num_samples=16)    # both, over a task, for k = 1, 2, 4, 8, 16
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import comb

from nanochat.engine import Engine
from nanochat.evals.items import CHUNK
from nanochat.runtime import world
from nanochat.tasks import Task, final_text


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples is right, when c of n drawn samples were: 1 − C(n−c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv:2107.03374, eq. 1). The plug-in 1 − (1 − c/n)^k is too low.
    Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    _check(n, k)
    if not 0 <= c <= n:
        raise ValueError(f"{c} right of {n} samples")
    return 1 - comb(n - c, k) / comb(n, k)


def maj_at_k(answers: Sequence[Hashable | None], right: Hashable, k: int) -> float:
    """The chance that the commonest answer among k of the given n answers is `right`; m tied answers share the win, 1/m each.

    None is a sample without an answer: it can be drawn, but it does not vote. Raises ValueError unless 1 ≤ k ≤ n.

    Counts subsets instead of drawing them. For every number r of right votes: in how many ways can the k − r other samples
    come from the other answers, none of which gets more than r votes and t of which get exactly r?
    """
    n = len(answers)
    _check(n, k)
    votes = Counter(answers)
    silent, for_right = votes.pop(None, 0), votes.pop(right, 0)
    won = 0.0
    for r in range(1, min(for_right, k) + 1):
        ways = {(0, 0): 1}                                  # (samples drawn, answers tied with r votes) -> number of ways
        for count in votes.values():
            grown: Counter = Counter()
            for (drawn, tied), number in ways.items():
                for v in range(min(count, r, k - r - drawn) + 1):
                    grown[drawn + v, tied + (v == r)] += number * comb(count, v)
            ways = grown
        for (drawn, tied), number in ways.items():
            won += comb(for_right, r) * number * comb(silent, k - r - drawn) / (1 + tied)
    return won / comb(n, k)


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} needs 1 ≤ k ≤ n = {n} samples")


def sample_curve(engine: Engine, task: Task, *, num_samples: int = 16, max_items: int | None = None, temperature: float = 1.0,
                 top_k: int | None = None, seed: int = 0, answer: Callable[..., Hashable | None] = final_text) -> dict:
    """pass@k and maj@k of a chat task: {"n": items, "samples": num_samples, "pass": {k: mean}, "maj": {k: mean}}, k = 1, 2, 4 … num_samples.

    A sample is right if the task's `check` says so; its vote is `answer(completion)`, and the vote to be found is `answer` of
    the item's own last message. Rank r of W takes items r, r + W, …
    """
    peers = world()
    n = len(task) if max_items is None or max_items < 0 else min(max_items, len(task))
    ks = sorted({2**i for i in range(num_samples.bit_length())} | {num_samples})
    points = {"pass": dict.fromkeys(ks, 0.0), "maj": dict.fromkeys(ks, 0.0)}
    mine = range(peers.rank, n, peers.size)
    for at in range(0, len(mine), CHUNK):
        items = [task[i] for i in mine[at : at + CHUNK]]
        prompts = [engine.tokenizer.render_for_completion(task.prompt(i)) for i in mine[at : at + CHUNK]]
        groups = engine.generate(prompts, num_samples=num_samples, max_tokens=task.max_tokens, temperature=temperature,
                                 top_k=top_k, seed=seed)
        for item, samples in zip(items, groups):
            right = sum(bool(task.check(item, sample)) for sample in samples)
            votes, wanted = [answer(sample) for sample in samples], answer(item["messages"][-1]["content"])
            for k in ks:
                points["pass"][k] += pass_at_k(num_samples, right, k)
                points["maj"][k] += maj_at_k(votes, wanted, k)
    everyones = peers.gather(points)
    means = {what: {k: sum(share[what][k] for share in everyones) / max(n, 1) for k in ks} for what in points}
    return {"n": n, "samples": num_samples, **means}
