"""Text on its way to the model: the hub, parquet shards, packing, loaders, mixtures, and the toy world."""

from nanochat.data.loader import Loader, chat_loader, pretrain_loader
from nanochat.data.mixture import Mixture
from nanochat.data.packing import BestFitCrop, BestFitPad
from nanochat.data.shards import TextShards, list_shards, write_shard
from nanochat.data.toyfiles import write_world
from nanochat.data.toyworld import World

__all__ = ["BestFitCrop", "BestFitPad", "Loader", "Mixture", "TextShards", "World", "chat_loader", "list_shards",
           "pretrain_loader", "write_shard", "write_world"]
