"""Supervised finetuning: manners, at a small learning rate → runs/<name>/sft."""

from nanochat.runtime import Run, World
from nanochat.train.chat_stage import chat_stage
from nanochat.train.config import ChatTrainConfig, MachineConfig
from nanochat.train.progress import Live


def sft(run: Run, config: ChatTrainConfig, machine: MachineConfig, world: World, live: Live | None = None) -> dict:
    """Finetune the midtrained model on demonstrations; only the assistant's tokens count."""
    return chat_stage(run, "sft", "mid", config, machine, world, live)
