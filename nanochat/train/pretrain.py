"""Pretraining: text shards → packed rows → next-token loss → runs/<name>/base (or another `folder`)."""

import torch

from nanochat.data import pretrain_loader
from nanochat.data.source import text_shards
from nanochat.evals import bits_per_byte
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import Run, World, say
from nanochat.tokenizer import Tokenizer
from nanochat.train import scaling
from nanochat.train.config import MachineConfig, ModelConfig, PretrainConfig
from nanochat.train.loop import train
from nanochat.train.progress import Live
from nanochat.train.stage import stage_folder


def pretrain(run: Run, config: PretrainConfig, machine: MachineConfig, world: World, live: Live | None = None) -> dict:
    """Train a model from nothing on the run's text; returns its headline numbers. See `stage_folder` for what may be refused."""
    tokenizer = Tokenizer.from_dir(run / "tokenizer")
    paths = text_shards(config.data.source, run / "data", world=config.data.world, seed=run.seed, shards=config.data.shards,
                        val_shard=config.data.val_shard)
    with stage_folder(run, config.folder, config, {"tokenizer": tokenizer.digest}, world) as stage:
        if stage.result is not None:
            return stage.result
        if config.horizon:
            say("\n".join(scaling.table(config, tokenizer.vocab_size)))
        model = GPT(model_config(config.model, tokenizer.vocab_size)).init_weights(seed=run.seed)
        loader = pretrain_loader(paths[:-1], tokenizer, rows=config.rows, sequence_len=config.model.sequence_len, seed=run.seed,
                                 streams=config.streams, rank=world.rank, world=world.size)

        def evaluate(model: GPT) -> float:
            return validation_bpb(model, paths[-1:], tokenizer, config, world)

        result = train(run, stage, config, machine, world, model, tokenizer, loader, evaluate, live)
        if world.main:
            stage.finish(result)
        return result


def model_config(m: ModelConfig, vocab_size: int) -> GPTConfig:
    """The whole shape of the model that a scale describes."""
    return GPTConfig.from_depth(m.depth, vocab_size, m.sequence_len, n_embd=m.n_embd, head_dim=m.head_dim,
                                n_kv_head=m.n_kv_head, arch=m.arch)


def validation_bpb(model: GPT, paths: list, tokenizer: Tokenizer, config: PretrainConfig, world: World) -> float:
    """Bits per byte on the first `eval_rows` packed rows of the validation shard, the same rows at every call and rank count."""
    streams = min(config.streams, config.rows)
    loader = pretrain_loader(paths, tokenizer, rows=config.rows, sequence_len=model.config.sequence_len, streams=streams,
                             rank=world.rank, world=world.size)
    batches = (tuple(torch.from_numpy(a).to(world.device) for a in loader.next())
               for _ in range(max(1, config.eval_rows // config.rows)))
    return bits_per_byte(model, batches, tokenizer.token_bytes)
