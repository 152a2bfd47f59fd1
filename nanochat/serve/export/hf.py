"""To Hugging Face: a folder that `transformers` opens as its own NanoChat architecture, with equal logits.

    to_hf(model, tokenizer, "out/")
    AutoModelForCausalLM.from_pretrained("out/")

The weights are the same matrices under other names; the tokenizer's files come from `Tokenizer.to_hf`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from nanochat.runtime import write_json
from nanochat.serve.export import new_folder

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
    eos = tokenizer.special["<|assistant_end|>"]
    weights = {hf_name(name): weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    config = hf_config(model.config, tokenizer.bos, eos, next(iter(weights.values())).dtype)
    with new_folder(folder) as out:
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        write_json(out / "config.json", config)
        write_json(out / "generation_config.json", {key: value for key, value in config.items() if "_token_id" in key})
        tokenizer.to_hf(out)
    return Path(folder)
