"""From logits to a token: temperature, top-k, top-p, and random numbers that belong to a row and to nobody else.

    keys = row_keys(0, [[5, 6], [5, 6]], [0, 1])                  # two samples of one prompt, seed 0
    tokens = sample(logits, temperature=0.8, top_k=50, u=uniforms(keys, position=0))

A pseudo-random generator hands out numbers in the order in which it is asked, so a row's luck would depend on who else
is in the batch. Here the number is computed from what the row *is*: (seed, prompt, which sample, position). A row is
therefore drawn alike alone or in a batch, after others have left, and when a killed run takes it up again.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def row_keys(seed: int, prompts: list[list[int]], numbers: list[int]) -> np.ndarray:
    """One 64-bit key a row, from the seed, the prompt's ids and the number of the sample; uint64 (B,)."""
    keys = np.empty(len(prompts), np.uint64)
    for i, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
        row = f"{seed}/{number}/".encode() + np.asarray(prompt, "<i8").tobytes()
        keys[i] = int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little")
    return keys


def uniforms(keys: np.ndarray, position: int | np.ndarray) -> np.ndarray:
    """The number in [0, 1) of each row at `position` of its answer; float64 (B,).

    Counter based: the output function of SplitMix64 (Steele, Lea and Flood 2014) at key + position · golden ratio.
    """
    steps = np.asarray(position).astype(np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):                             # 64-bit arithmetic wraps, as it should
        z = keys + steps * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(12)) * 2.0**-52                       # 52 bits: u times a sum rounds to less than the sum


def sample(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
           u: np.ndarray | None = None) -> Tensor:
    """One token a row: logits (B, V) and numbers u (B,) in [0, 1) -> ids (B,).

    Temperature 0 takes the most probable token and needs no u. Otherwise the logits are divided by the temperature;
    only the `top_k` largest stay, and of these the smallest set whose probability reaches `top_p` (nucleus sampling,
    Holtzman et al. 2020); the token is the one at which the running sum of the probabilities passes u.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if logits.device.type == "mps":                              # has no float64
        logits = logits.cpu()
    logits = (logits.double() - logits.amax(-1, keepdim=True)) / temperature
    ids = None                                                   # columns are ids, until they are sorted
    if top_k is not None and top_k < logits.size(-1):
        logits, ids = logits.topk(top_k, dim=-1)                 # (B, K), largest first
    elif top_p is not None and top_p < 1:
        logits, ids = logits.sort(dim=-1, descending=True)
    probs = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        before = probs.cumsum(-1) - probs                        # the probability of all that is more likely
        probs = probs.masked_fill(before >= top_p, 0.0)
    sums = probs.cumsum(-1)                                      # (B, K)
    u = torch.as_tensor(u, dtype=torch.float64, device=logits.device)
    column = torch.searchsorted(sums, (u * sums[:, -1])[:, None], right=True)      # (B, 1): the first sum above u
    return (column if ids is None else ids.gather(1, column)).squeeze(1)
