"""Midtraining: the base model learns the shape of a conversation, multiple choice and tools → runs/<name>/mid."""

from nanochat.runtime import Run, World
from nanochat.train.chat_stage import chat_stage
from nanochat.train.config import ChatTrainConfig, MachineConfig
from nanochat.train.progress import Live


def midtrain(run: Run, config: ChatTrainConfig, machine: MachineConfig, world: World, live: Live | None = None) -> dict:
    """The high-learning-rate stage between pretraining and SFT, with replay of pretraining text so that nothing is forgotten."""
    return chat_stage(run, "mid", "base", config, machine, world, live)
