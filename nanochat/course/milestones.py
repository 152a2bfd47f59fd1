"""The game in the report card: what a run has achieved, each with the numbers that prove it."""

from dataclasses import dataclass

GPT2_CORE = 0.256525       # GPT-2 (1.5 B) on CORE, as the reference's leaderboard states it


@dataclass(frozen=True)
class Milestone:
    title: str
    reached: bool
    evidence: str


def reached(results: dict[str, float], chance: dict[str, float], toy: bool) -> list[Milestone]:
    """The milestones that this run's metrics can judge, in the order in which a model grows up.

    `toy`: the run read the toy world. Its CORE has the format of the real one and nine easy tasks, so that no figure of
    another model may stand beside it.
    """
    found = []

    def judge(title: str, keys: tuple[str, ...], test, evidence: str) -> None:
        if all(key in results for key in keys):
            values = [results[key] for key in keys]
            found.append(Milestone(title, bool(test(*values)), evidence.format(*values)))

    judge(
        "Reads better than an RNN",
        ("base.val_bpb", "char_rnn.val_bpb"),
        lambda a, b: a < b,
        "{0:.3f} against {1:.3f} bits per byte",
    )
    judge("Knows the town", ("base.cloze_acc",), lambda a: a >= 0.95, "{0:.1%} of the facts completed (95% wanted)")
    judge(
        "Adds numbers it never saw",
        ("base.addition_acc",),
        lambda a: a >= 0.85,
        "{0:.1%} of held-out sums (85% wanted)",
    )
    if not toy:
        judge("Passes GPT-2", ("base.core",), lambda a: a > GPT2_CORE, f"CORE {{0:.4f}} against {GPT2_CORE}")
    judge(
        "Answers in a chat",
        ("sft.qa_seen_acc",),
        lambda a: a >= 0.97,
        "{0:.1%} of the questions about people it chatted about (97% wanted)",
    )
    judge("Brings reading into the chat", ("sft.qa_heldout_acc",), lambda a: a >= 0.85,
          "{0:.1%} of the questions about people it only read about (85% wanted)")
    judge(
        "Uses its calculator", ("sft.tool_acc",), lambda a: a >= 0.9, "{0:.1%} right through a tool call (90% wanted)"
    )
    for task, title in (
        ("arc_easy", "Beats chance on ARC-Easy"),
        ("arc_challenge", "Beats chance on ARC-Challenge"),
        ("mmlu", "Beats chance on MMLU"),
        ("gsm8k", "Solves a grade-school problem"),
        ("humaneval", "Writes a function that works"),
    ):
        guess = chance.get(f"sft.{task}_acc", 0.25 if task in ("arc_easy", "arc_challenge", "mmlu") else 0.0)
        judge(
            title,
            (f"sft.{task}_acc",),
            lambda a, guess=guess: a > guess + (0.03 if guess else 0),
            "{0:.1%}" + f", guessing gives {guess:.0%}",
        )
    judge(
        "Learns from reward",
        ("grpo.reward_first", "grpo.reward_last"),
        lambda a, b: b - a >= 0.3,
        "reward {0:.2f} → {1:.2f} (+0.30 wanted)",
    )
    judge("Learns more than by more of the same", ("grpo.reward_last", "grpo.reward_zero_lr", "grpo.reward_more_sft"),
          lambda a, b, c: a - max(b, c) >= 0.2, "reward {0:.2f}; without learning {1:.2f}, with more SFT {2:.2f}")
    judge("And keeps it on new questions", ("grpo.heldout_before", "grpo.heldout_after"), lambda a, b: b - a >= 0.1,
          "held-out {0:.1%} → {1:.1%} (+10 points wanted)")
    return found
