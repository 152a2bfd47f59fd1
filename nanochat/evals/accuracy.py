"""An accuracy and what it is worth: how many items, what guessing would score, and a 95 % interval.

    accuracy(correct=37, n=50, chance=0.25)
    # {"accuracy": 0.74, "centered": 0.653…, "n": 50, "correct": 37, "chance": 0.25, "interval": [0.604…, 0.841…]}
"""

from math import sqrt


def wilson(correct: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval for a proportion: 95 % for the default z (E. B. Wilson, JASA 22, 1927).

    Unlike mean ± z·σ it stays inside [0, 1] and is honest at 0 of n and n of n. With n = 0 nothing is known: (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    middle = p + z * z / (2 * n)
    spread = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def centered(accuracy: float, chance: float) -> float:
    """The accuracy on a scale where guessing is 0 and all right is 1; worse than guessing is negative."""
    return (accuracy - chance) / (1 - chance)


def accuracy(correct: int, n: int, chance: float = 0.0) -> dict:
    """The card of one task: everything that should stand beside an accuracy. With n = 0 the accuracy is 0."""
    share = correct / n if n else 0.0
    return {"accuracy": share, "centered": centered(share, chance), "n": n, "correct": correct, "chance": chance,
            "interval": list(wilson(correct, n))}
