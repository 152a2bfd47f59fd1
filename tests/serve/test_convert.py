"""Bringing a model in: nanochat's own files and transformers' give the logits they had there; the rest is refused."""

import json
import pickle

import pytest
import torch

from nanochat.cli import app
from nanochat.engine import Engine
from nanochat.model import GPT, GPTConfig
from nanochat.model.config import SPEEDRUN
from nanochat.runtime import UserError, open_run
from nanochat.serve.convert import import_checkpoint, import_run, import_tokenizer
from nanochat.serve.export.hf import to_hf
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model

TEXT = ["The quick brown fox jumps over 123 lazy dogs; don't we'll éàü 안녕하세요 😉\n\n  x = 5"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXT, 300)


def random_model(**switches) -> GPT:
    model = GPT(GPTConfig(64, 300, 4, 4, 2, 48, **switches)).init_weights(0)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return model


def as_nanochat(model: GPT, speedrun: bool) -> dict:
    """The weights under nanochat's names, its embedding in bf16, its tables padded to a multiple of 64 rows."""
    w = {name: p.detach().clone() for name, p in model.named_parameters()}

    def padded(t):
        return torch.cat((t, torch.ones(320 - len(t), t.size(1))))

    theirs = {
        "transformer.wte.weight": padded(w["wte.weight"]).bfloat16(),
        "lm_head.weight": padded(w["lm_head.weight"]),
    }
    for i in range(4):
        for part in ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            theirs[f"transformer.h.{i}.{part}.weight"] = w[f"blocks.{i}.{part}.weight"]
        if speedrun and i % 2 == 1:
            theirs[f"transformer.h.{i}.attn.ve_gate.weight"] = w[f"blocks.{i}.attn.value.gate.weight"]
            theirs[f"value_embeds.{i}.weight"] = w[f"blocks.{i}.attn.value.table.weight"]
    if speedrun:
        theirs |= {name: w[name] for name in ("resid_lambdas", "x0_lambdas", "backout_lambda")}
        theirs |= {"smear_gate.weight": w["smear.gate.weight"], "smear_lambda": w["smear.scale"]}
    return theirs


def write_nanochat(folder, weights, step=120, **more):
    folder.mkdir(exist_ok=True)
    torch.save(weights, folder / f"model_{step:06d}.pt")
    shape = {"sequence_len": 64, "vocab_size": 300, "n_layer": 4, "n_head": 4, "n_kv_head": 2, "n_embd": 48}
    meta = {"step": step, "val_bpb": 0.8, "model_config": shape | more, "user_config": {"depth": 4}}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    return folder


def idx():
    return torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("speedrun", [False, True])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_of_nanochats_own_gives_its_logits(tmp_path, speedrun, prefix):
    model = random_model(**SPEEDRUN if speedrun else {})
    with torch.no_grad():
        model.wte.weight.copy_(model.wte.weight.bfloat16())
    theirs = {prefix + name: w for name, w in as_nanochat(model, speedrun).items()}
    folder = write_nanochat(tmp_path / "d4", theirs, **({"window_pattern": "SSSL"} if speedrun else {}))
    write_nanochat(tmp_path / "d4", {name: torch.zeros_like(w) for name, w in theirs.items()}, step=20)
    found = import_checkpoint(folder)
    assert found.config == model.config and {p.dtype for p in found.parameters()} == {torch.float32}
    torch.testing.assert_close(found(idx()), model(idx()), atol=1e-6, rtol=0)
    assert not import_checkpoint(folder, step=20).lm_head.weight[:300].any()


@pytest.mark.parametrize("n_kv_head", [4, 1])
def test_a_model_that_transformers_saved_computes_and_continues_the_same(tmp_path, tokenizer, n_kv_head):
    from transformers import NanoChatConfig, NanoChatForCausalLM

    torch.manual_seed(0)
    theirs = NanoChatForCausalLM(NanoChatConfig(
        vocab_size=300, hidden_size=48, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=n_kv_head, max_position_embeddings=64, initializer_range=0.4,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, eos_token_id=[tokenizer.bos],
    )).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="100KB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists()
    ours = import_checkpoint(tmp_path / "hf")
    with torch.no_grad():
        torch.testing.assert_close(ours(idx()), theirs(idx()).logits, atol=1e-5, rtol=1e-5)
        prompt = idx()[:1, :10]
        more = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False)
    [[answer]] = Engine(ours, tokenizer).generate([prompt[0].tolist()], max_tokens=30, temperature=0, tools=False)
    assert answer.ids == more[0, 10:].tolist()[: len(answer.ids)] and len(answer.ids) > 5


def test_what_we_export_comes_back_bit_for_bit_and_talks(tmp_path, tokenizer):
    model = random_model()
    to_hf(model, tokenizer, tmp_path / "hf")
    import_run(tmp_path / "hf", None, tmp_path / "run")
    found, text, meta = load_model(open_run(tmp_path / "run"))
    assert meta["stage"] == "sft" and text.digest == tokenizer.digest and found.config == model.config
    assert all(torch.equal(w, found.state_dict()[name]) for name, w in model.state_dict().items())


def test_the_command_makes_a_run_of_nanochats_files_and_refuses_to_overwrite_it(tmp_path, tokenizer, capsys):
    folder = write_nanochat(tmp_path / "d4", as_nanochat(random_model(), False))
    tokenizer.save(tmp_path / "tok")
    command = [
        "import",
        str(folder),
        "--run",
        str(tmp_path / "r"),
        "--tokenizer",
        str(tmp_path / "tok"),
        "--stage",
        "base",
    ]
    app(command, standalone_mode=False)
    assert "nanochat chat" in capsys.readouterr().out
    assert load_model(open_run(tmp_path / "r"))[2]["stage"] == "base"
    with pytest.raises(UserError, match="already"):
        app(command, standalone_mode=False)


def change(weights, name, value):
    return {**weights, name: value}


def without(weights, *names):
    return {name: w for name, w in weights.items() if name not in names}


@pytest.mark.parametrize("spoil, word", [
    (lambda w: without(w, "transformer.h.2.mlp.c_fc.weight"), "c_fc.weight is missing"),
    (lambda w: change(w, "transformer.h.1.attn.c_q.weight", torch.zeros(48, 40)), r"\[48, 40\].*\[48, 48\]"),
    (lambda w: change(w, "transformer.h.4.attn.c_q.weight", torch.zeros(48, 48)), "have no place.*h.4.attn"),
    (lambda w: change(w, "resid_lambdas", torch.ones(4)), "between"),
    (lambda w: {"state": [1, 2]}, "something else"),
    (lambda w: [1], "something else"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path, spoil, word):
    folder = write_nanochat(tmp_path / "d4", spoil(as_nanochat(random_model(), False)))
    with pytest.raises(UserError, match=word) as error:
        import_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_an_architecture_from_in_between_is_refused(tmp_path):
    weights = as_nanochat(random_model(**SPEEDRUN), True)
    with pytest.raises(UserError, match="March 2026"):
        import_checkpoint(write_nanochat(tmp_path / "a", without(weights, "smear_gate.weight", "smear_lambda")))
    wide = change(weights, "transformer.h.1.attn.ve_gate.weight", torch.zeros(2, 32))
    with pytest.raises(UserError, match="March 2026"):
        import_checkpoint(write_nanochat(tmp_path / "b", wide))


def test_nothing_pickled_is_run(tmp_path):
    folder = write_nanochat(tmp_path / "d4", {})
    class_by_name = b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR."  # what a pickle that runs a command looks like
    for content in (class_by_name, b"junk", b""):
        (folder / "model_000120.pt").write_bytes(content)
        with pytest.raises(UserError, match="not a PyTorch file of plain tensors") as error:
            import_checkpoint(folder)
        assert "\n" not in str(error.value)
    (folder / "tokenizer.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match="pickle"):
        import_tokenizer(folder)


@pytest.mark.parametrize("change, word", [
    ({"model_type": "llama"}, "llama"), ({"rms_norm_eps": 1e-5}, "rms_norm_eps"), ({"attention_bias": True}, "attention_bias"),
    ({"final_logit_softcapping": None}, "softcapping"), ({"intermediate_size": 100}, "intermediate_size"),
    ({"num_attention_heads": 3}, "head_dim"), ({"num_hidden_layers": None}, "n_layer|num_hidden"),
])  # fmt: skip
def test_another_kind_of_transformers_model_is_refused_by_its_option(tmp_path, tokenizer, change, word):
    folder = to_hf(random_model(), tokenizer, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text()) | change
    if change.get("num_hidden_layers", 0) is None:
        del config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=word) as error:
        import_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_damaged_and_missing_files_are_named(tmp_path, tokenizer):
    folder = to_hf(random_model(), tokenizer, tmp_path / "hf")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(UserError, match="model.safetensors is not a readable"):
        import_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors does not exist"):
        import_checkpoint(folder)
    with pytest.raises(UserError, match="neither"):
        import_checkpoint(tmp_path)
    theirs = write_nanochat(tmp_path / "d4", as_nanochat(random_model(), False))
    with pytest.raises(UserError, match="no model of step 7; it has 120"):
        import_checkpoint(theirs, step=7)
    (theirs / "meta_000120.json").unlink()
    with pytest.raises(UserError, match="meta_000120.json does not exist"):
        import_checkpoint(theirs)


def test_a_tokenizer_of_another_layout_or_size_is_refused_and_nothing_is_left(tmp_path, tokenizer):
    folder = to_hf(random_model(), tokenizer, tmp_path / "hf")
    about = json.loads((folder / "tokenizer.json").read_text())
    about["model"]["merges"].reverse()
    (folder / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="in this order"):
        import_run(folder, None, tmp_path / "run")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="byte-level BPE"):
        import_run(folder, None, tmp_path / "run")
    Tokenizer.train(TEXT, 290).save(tmp_path / "tok")
    with pytest.raises(UserError, match="300 tokens, the tokenizer 290"):
        import_run(folder, tmp_path / "tok", tmp_path / "run")
    with pytest.raises(UserError, match="stage"):
        import_run(folder, tmp_path / "tok", tmp_path / "run", stage="last")
    assert not (tmp_path / "run").exists()


def test_the_speedrun_is_exported_to_no_program_that_would_ignore_it(tmp_path, tokenizer):
    from nanochat.serve.export.c import to_c

    for to in (to_hf, to_c):
        with pytest.raises(UserError, match="seed architecture only.*smear") as error:
            to(random_model(**SPEEDRUN), tokenizer, tmp_path / "out")
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
