"""
Bring in a model that was trained elsewhere: by nanochat itself, or saved by transformers as NanoChat.

    model = import_checkpoint("d32/")                          # model_071680.pt beside meta_071680.json, or a HF folder
    import_run("d32/", "hf/", name="d32", stage="sft")         # a run with it: nanochat chat --run d32

Nothing that could run code is read: weights come from safetensors or through torch's weights-only loader, a tokenizer
from tokenizer.json or from our model.json. nanochat's own tokenizer.pkl is a pickle and stays closed.
"""

import re
from pathlib import Path

import torch

import rustbpe
from nanochat.model import GPT, GPTConfig
from nanochat.model.config import GATE_CHANNELS, SMEAR_CHANNELS, SPEEDRUN
from nanochat.runtime import UserError, World, open_run, read_json, say
from nanochat.serve.export.hf import empty, filled, from_hf
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.tokenizer.export import byte_names
from nanochat.train import checkpoint
from nanochat.train.saver import Saver

# ours -> nanochat's, outside the blocks; what it keeps in blocks has equal names behind "transformer.h"
NAMES = {
    "wte.weight": "transformer.wte.weight",
    "smear.gate.weight": "smear_gate.weight",
    "smear.scale": "smear_lambda",
}


def nanochat_name(name: str) -> str:
    """The name of one of our weights in nanochat's checkpoints.

    >>> nanochat_name("blocks.3.attn.value.table.weight")
    'value_embeds.3.weight'
    """
    if table := re.fullmatch(r"blocks\.(\d+)\.attn\.value\.table\.weight", name):
        return f"value_embeds.{table[1]}.weight"
    name = NAMES.get(name, name).replace(".attn.value.gate.", ".attn.ve_gate.")
    return f"transformer.h.{name.removeprefix('blocks.')}" if name.startswith("blocks.") else name


def import_checkpoint(folder: str | Path, step: int | None = None) -> GPT:
    """
    The model in `folder`: transformers' files, or nanochat's model_<step>.pt with meta_<step>.json (newest step, or `step`).

    Raises UserError with one line for what does not fit.
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        return from_hf(folder)
    found = {int(path.stem[6:]): path for path in folder.glob("model_*.pt") if path.stem[6:].isdigit()}
    if not found:
        raise UserError(f"{folder} holds neither transformers' config.json nor nanochat's model_<step>.pt")
    if step is not None and step not in found:
        raise UserError(f"{folder} has no model of step {step}; it has {', '.join(map(str, sorted(found)))}")
    path = found[max(found) if step is None else step]
    weights = pytorch_weights(path)
    config = nanochat_config(read_json(path.with_name(f"meta_{path.stem[6:]}.json")), weights, path)
    return filled(empty(config), weights, nanochat_name, path)


def pytorch_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pt file by name, without the prefix that torch.compile puts before them."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (a foreign file may break torch's reader in any way)
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} is not a PyTorch file of plain tensors ({reason})") from None
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) for w in weights.values()):
        raise UserError(f"{path} holds something else than a model's weights; is it an optimizer's file?")
    weights = {name.removeprefix("_orig_mod."): w for name, w in weights.items()}
    return {name: w for name, w in weights.items() if name not in ("cos", "sin")}  # the rotary tables of some versions


def nanochat_config(meta: dict, weights: dict[str, torch.Tensor], path: Path) -> GPTConfig:
    """
    The config of a nanochat checkpoint. Which architecture it has shows in its weights alone: the first release's has
    none of the speedrun's, that of March 2026 and later all of them; what lies between had other constants.
    """
    try:
        c = meta["model_config"]
        shape = {name: c[name] for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path.with_name(f'meta_{path.stem[6:]}.json')} does not say {error}") from None
    extras = [name for name in weights if not re.match(r"transformer\.|lm_head\.", name) or "ve_gate" in name]
    if not extras and set(c.get("window_pattern", "L")) == {"L"}:
        return GPTConfig(**shape)
    gates = {w.size(-1) for name, w in weights.items() if "ve_gate" in name}
    smear = weights.get("smear_gate.weight")
    if gates != {GATE_CHANNELS} or smear is None or smear.size(-1) != SMEAR_CHANNELS or "backout_lambda" not in weights:
        raise UserError(f"{path} is from between nanochat's first release and March 2026, whose constants are not known "
                        "here; only these two architectures can be read")  # fmt: skip
    return GPTConfig(**shape, **{**SPEEDRUN, "window_pattern": c.get("window_pattern", "L")})


def import_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in `folder`: our model.json, or a tokenizer.json whose ids are laid out as nanochat's."""
    folder = Path(folder)
    if (folder / "model.json").exists():
        return Tokenizer.from_dir(folder)
    path = folder / "tokenizer.json"
    if not path.exists():
        closed = " (tokenizer.pkl is a pickle, which could run code, and is not read)"
        raise UserError(f"{folder} has no tokenizer.json or model.json{closed * (folder / 'tokenizer.pkl').exists()}")
    about = read_json(path)
    try:
        ids, names = about["model"]["vocab"], byte_names()
        pairs = [tuple(p.split(" ")) if isinstance(p, str) else tuple(p) for p in about["model"]["merges"]]
        merges = [(ids[a], ids[b]) for a, b in pairs]
        special = sorted((t["id"], t["content"]) for t in about["added_tokens"])
        steps = about["pre_tokenizer"].get("pretokenizers", [about["pre_tokenizer"]])
        pattern = next(s["pattern"]["Regex"] for s in steps if s["type"] == "Split")
        first = 256 + len(merges)
        laid_out = (
            all(ids[names[byte]] == byte for byte in range(256))
            and all(ids[a + b] == 256 + i for i, (a, b) in enumerate(pairs))
            and special == [(first + i, name) for i, name in enumerate(SPECIAL_TOKENS)]
        )
        if not laid_out:
            raise UserError(f"{path}: its ids are not bytes, merges and nanochat's nine special tokens in this order")
        return Tokenizer(rustbpe.Tokenizer.from_merges(merges, pattern), merges)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise UserError(f"{path} is not a byte-level BPE as nanochat's ({type(error).__name__}: {error})") from None


def import_run(folder: str | Path, tokenizer: str | Path | None, name: str | Path, stage: str = "sft",
               step: int | None = None) -> Path:  # fmt: skip
    """
    A new run `name` whose `stage` left the model in `folder`, to be talked to, evaluated and exported; -> its folder.

    The tokenizer is that of the folder `tokenizer`; None: of `folder` itself.
    """
    if stage not in checkpoint.STAGES:
        raise UserError(f"unknown stage {stage!r}; choose one of {', '.join(checkpoint.STAGES)}")
    text = import_tokenizer(tokenizer or folder)
    model = import_checkpoint(folder, step)
    if model.config.vocab_size != text.vocab_size:
        raise UserError(f"the model in {folder} has {model.config.vocab_size} tokens, the tokenizer {text.vocab_size}; "
                        "they do not belong together")  # fmt: skip
    run = open_run(name, scale="imported", create=True)
    if (run / stage).exists() or (run / "tokenizer").exists():
        raise UserError(f"{run.path} has a {stage} or a tokenizer already; choose another --run")
    with Saver(run / stage, World(), belongs={"tokenizer": text.digest}, last=-1) as saver:
        saver.start(0, model=model, optim={}, data={}, state={"schema": checkpoint.SCHEMA, "tokenizer": text.digest})
    if saver.last < 0:
        raise UserError(f"{run.path} could not be written")
    text.save(run / "tokenizer")
    say(
        f"imported {model.num_params():,} parameters as stage {stage} of run {run.name}; nanochat chat --run {run.name}"
    )
    return run.path
