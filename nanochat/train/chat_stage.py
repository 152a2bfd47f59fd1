"""What midtraining and SFT share: a mixture of conversations and documents, loss on what the assistant should say."""

import torch

from nanochat.data import Mixture, chat_loader
from nanochat.evals import bits_per_byte
from nanochat.model import GPT
from nanochat.runtime import Run, World
from nanochat.tasks import load_task
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model
from nanochat.train.config import ChatTrainConfig, MachineConfig, Share
from nanochat.train.loop import train
from nanochat.train.progress import Live
from nanochat.train.stage import stage_folder


def mixture(shares: list[Share], run: Run, split: str, seed: int) -> Mixture:
    """The stage's tasks of one split, each with its share of the tokens."""
    tasks = [(load_task(s.task, split, world_folder=run / "data", **s.options), s.share) for s in shares]
    return Mixture(tasks, seed)


def chat_stage(run: Run, name: str, parent: str, config: ChatTrainConfig, machine: MachineConfig, world: World,
               live: Live | None = None) -> dict:
    """Train the model of stage `parent` on the mixture and leave it in stage `name`; returns the headline numbers."""
    model, tokenizer, meta = load_model(run, parent)
    with stage_folder(run, name, config, {"tokenizer": tokenizer.digest, parent: meta["digest"]}, world) as stage:
        if stage.result is not None:
            return stage.result
        loader = mixture_loader(config, "train", run, tokenizer, model, world)

        def evaluate(model: GPT) -> float:
            held_out = mixture_loader(config, "test", run, tokenizer, model, world)
            batches = (tuple(torch.from_numpy(a).to(world.device) for a in held_out.next())
                       for _ in range(max(1, config.eval_rows // config.rows)))
            return bits_per_byte(model, batches, tokenizer.token_bytes)

        result = train(run, stage, config, machine, world, model, tokenizer, loader, evaluate, live)
        if world.main:
            stage.finish(result)
        return result


def mixture_loader(config: ChatTrainConfig, split: str, run: Run, tokenizer: Tokenizer, model: GPT, world: World):
    """Packed rows of the mixture; the same global batches for any number of ranks."""
    return chat_loader(mixture(config.mixture, run, split, run.seed), tokenizer, rows=config.rows,
                       sequence_len=model.config.sequence_len, streams=config.streams, rank=world.rank, world=world.size)
