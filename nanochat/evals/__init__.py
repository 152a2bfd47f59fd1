"""Evaluations: bits per byte (`bpb`), CORE (`core`), base and chat tasks (`completion`, `chat`), and what samples buy (`passk`).

CORE's own entry keeps its module's name: `nanochat.evals.core.evaluate(model, tokenizer, bundle_dir)`.
"""

from nanochat.evals.accuracy import accuracy, centered, wilson
from nanochat.evals.bpb import bits_per_byte
from nanochat.evals.chat import chatcore, evaluate_task
from nanochat.evals.completion import evaluate_completion
from nanochat.evals.passk import maj_at_k, pass_at_k, sample_curve
from nanochat.evals.toy_bundle import write_toy_bundle

__all__ = ["accuracy", "bits_per_byte", "centered", "chatcore", "evaluate_completion", "evaluate_task", "maj_at_k", "pass_at_k",
           "sample_curve", "wilson", "write_toy_bundle"]
