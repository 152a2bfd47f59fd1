"""The stages of a dry run: a run whose folder holds MARK trains a model of two layers for one step.

What does not cost time stays as the scale says: vocabulary, context, architecture, optimizer, mixture, task. So all that
comes after a stage finds a checkpoint as the real one would be, but for its size and its sense.
"""

from nanochat.runtime import Run
from nanochat.train.config import CharRNNConfig, ChatTrainConfig, GRPOConfig, PretrainConfig

MARK = "dry_run.json"
STAGE = {"rows": 1, "streams": 1, "device_rows": None, "eval_rows": 1, "compile": False}


def pocket(run: Run, config: PretrainConfig | ChatTrainConfig | GRPOConfig | CharRNNConfig):
    """The configuration itself, or in a dry run what stands in for it."""
    if not (run / MARK).exists():
        return config
    if isinstance(config, CharRNNConfig):
        return config.model_copy(update={"steps": 1, "rows": 4, "sequence_len": 64})
    small = {"schedule": config.schedule.model_copy(update={"steps": 1, "warmup": 0})}
    if isinstance(config, GRPOConfig):
        small |= {"prompts": 1, "samples": 2, "max_tokens": 16, "replay_rows": 1, "eval_prompts": 1, "eval_samples": 2,
                  "heldout_items": 2, "streams": 1}  # fmt: skip
    else:
        small |= STAGE
    if isinstance(config, PretrainConfig):
        small["model"] = config.model.model_copy(update={"depth": 2, "n_embd": None, "n_kv_head": None})
    return config.model_copy(update=small)
