"""To Hugging Face and back: a folder that `transformers` opens as its own NanoChat architecture, with equal logits.

    to_hf(model, tokenizer, "out/")
    AutoModelForCausalLM.from_pretrained("out/")
    model = from_hf("out/")

The weights are the same matrices under other names; the tokenizer's files come from `Tokenizer.to_hf`.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError, read_json, write_json
from nanochat.serve.export import new_folder, seed_only

# ours -> theirs, inside one block
BLOCK_NAMES = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
NORM_EPS = 1e-6  # of nanochat.model.precision.rms_norm


def hf_name(name: str) -> str:
    """The name of one of our weights in transformers.

    >>> hf_name("blocks.3.attn.c_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    if name == "wte.weight":
        return "model.embed_tokens.weight"
    if name == "lm_head.weight":
        return name
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{BLOCK_NAMES[inner.removesuffix('.weight')]}.weight"


def hf_config(config, bos: int, eos: int, dtype: torch.dtype = torch.float32) -> dict:
    """config.json for a GPTConfig; generation starts after `bos` and ends at `eos` (the assistant's end of turn) or
    at bos."""
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.sequence_len,
        "hidden_act": "relu2",
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "final_logit_softcapping": config.softcap,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": bos,
        "eos_token_id": [eos, bos],
        "pad_token_id": bos,
        "dtype": str(dtype).removeprefix("torch."),
    }


def to_hf(model, tokenizer, folder: str | Path) -> Path:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer's files. Returns the folder."""
    seed_only(model.config, "transformers' NanoChat")
    eos = tokenizer.special["<|assistant_end|>"]
    weights = {hf_name(name): weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    config = hf_config(model.config, tokenizer.bos, eos, next(iter(weights.values())).dtype)
    with new_folder(folder) as out:
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        write_json(out / "config.json", config)
        write_json(out / "generation_config.json", {key: value for key, value in config.items() if "_token_id" in key})
        tokenizer.to_hf(out)
    return Path(folder)


def from_hf(folder: str | Path) -> GPT:
    """
    The model in a folder of transformers' NanoChat architecture, weights in fp32.

    Raises UserError, naming what does not fit: another architecture, an option we do not have, a weight too many, too few
    or of another shape.
    """
    folder = Path(folder)
    model = empty(config_from_hf(read_json(folder / "config.json"), folder))
    return filled(model, hf_weights(folder), hf_name, folder)


def config_from_hf(c: dict, folder: Path) -> GPTConfig:
    """A GPTConfig from the contents of config.json."""
    if c.get("model_type") != "nanochat":
        raise UserError(f"{folder} holds a model of type {c.get('model_type')!r}; only nanochat can be read")
    try:
        n_head, rope = c["num_attention_heads"], c.get("rope_parameters") or {}
        head_dim = c.get("head_dim") or c["hidden_size"] // n_head
        wanted = {
            "hidden_act": ("relu2", c.get("hidden_act", "relu2")),
            "attention_bias": (False, c.get("attention_bias", False)),
            "tie_word_embeddings": (False, c.get("tie_word_embeddings", False)),
            "rms_norm_eps": (NORM_EPS, c.get("rms_norm_eps", NORM_EPS)),
            "rope_type": ("default", rope.get("rope_type", "default")),
            "intermediate_size": (4 * c["hidden_size"], c["intermediate_size"]),
            "head_dim": (c["hidden_size"] // n_head, head_dim),
            "final_logit_softcapping": ("a number", "a number" if c.get("final_logit_softcapping", 15.0) else "off"),
        }
        for name, (ours, theirs) in wanted.items():
            if ours != theirs:
                raise UserError(f"{folder / 'config.json'}: {name} is {theirs}; only {ours} can be read")
        return GPTConfig(
            sequence_len=c["max_position_embeddings"], vocab_size=c["vocab_size"], n_layer=c["num_hidden_layers"],
            n_head=n_head, n_kv_head=c.get("num_key_value_heads") or n_head, n_embd=c["hidden_size"],
            softcap=c.get("final_logit_softcapping", 15.0),
            rope_base=rope.get("rope_theta") or c.get("rope_theta") or 10000.0,
        )  # fmt: skip
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} does not say {error}") from None


def hf_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of model.safetensors, or of the shards that model.safetensors.index.json lists."""
    index, weights = folder / "model.safetensors.index.json", {}
    files = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    for name in files:
        path = folder / Path(name).name
        if not path.exists():
            raise UserError(f"{path} does not exist; the folder is not complete")
        try:
            weights |= load_file(path)
        except (SafetensorError, json.JSONDecodeError) as error:
            raise UserError(f"{path} is not a readable safetensors file ({error})") from None
    return weights


def empty(config: GPTConfig) -> GPT:
    """A model of this shape without memory, whose weights `filled` takes from elsewhere."""
    with torch.device("meta"):
        return GPT(config)


def filled(model: GPT, weights: dict[str, torch.Tensor], name_of, source: Path) -> GPT:
    """
    The model with foreign `weights` in fp32; name_of(ours) is a weight's name among them. Tables and heads may have been
    padded below: rows beyond the model's own are left out. Raises UserError for the first weight that does not fit.
    """
    state = {}
    for name, own in model.state_dict().items():
        theirs = weights.pop(name_of(name), None)
        if theirs is None:
            raise UserError(f"{source}: {name_of(name)} is missing; it is not a whole model of the shape it states")
        if name in ("wte.weight", "lm_head.weight"):
            theirs = theirs[: len(own)]
        if theirs.shape != own.shape:
            stated, found = list(own.shape), list(theirs.shape)
            raise UserError(f"{source}: {name_of(name)} has shape {found}, but its configuration says {stated}")
        state[name] = theirs.float().contiguous()
    if weights:
        raise UserError(f"{source}: {len(weights)} weights have no place in this model, such as {min(weights)}")
    model.to_empty(device="cpu")
    model.load_state_dict(state, assign=True)
    return model.requires_grad_()
