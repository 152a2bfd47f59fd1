"""Taking a model elsewhere: the same logits in transformers, the same ids in tiktoken, the same tokens from one C
program."""

import json
import subprocess

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rigged import CALL, RESULT, SAID, rigged_model

from nanochat.engine import Engine
from nanochat.model import GPT, GPTConfig
from nanochat.runtime import UserError
from nanochat.sandbox import calculate
from nanochat.serve.export import export
from nanochat.serve.export.c import to_c
from nanochat.serve.export.hf import to_hf
from nanochat.serve.export.tiktoken import load, to_tiktoken
from nanochat.tokenizer import Tokenizer

TEXT = [
    "The quick brown fox jumps over 123 lazy dogs; don't we'll I'VE éàü 안녕하세요 😉\n\n  x = 5\r\n\tfoo",
    "the sum of 12 and 30 is 42.",
] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXT, 320)


def make_model(tokenizer, n_kv_head=2, seed=1):
    """A small model with nothing left at zero."""
    config = GPTConfig(
        sequence_len=96, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=4, n_kv_head=n_kv_head, n_embd=64
    )
    model = GPT(config).init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
def test_transformers_computes_the_same_logits(tmp_path, tokenizer, n_kv_head):
    from transformers import AutoModelForCausalLM

    ours = make_model(tokenizer, n_kv_head)
    theirs = AutoModelForCausalLM.from_pretrained(to_hf(ours, tokenizer, tmp_path / "hf"))
    assert type(theirs).__name__ == "NanoChatForCausalLM" and theirs.dtype == torch.float32
    idx = torch.randint(0, tokenizer.vocab_size, (2, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(idx).logits, ours(idx), atol=1e-5, rtol=1e-5)


def test_transformers_chats_as_the_engine_does(tmp_path, tokenizer, model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = to_hf(model, tokenizer, tmp_path / "hf")
    theirs, their_tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "don't 12345 안녕 😉"}]
    ids = their_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    assert ids[0].tolist() == tokenizer.render_for_completion({"messages": messages})
    with torch.no_grad():
        answer = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)[
            0, ids.size(1) :
        ]
    [[completion]] = Engine(model, tokenizer).generate([ids[0].tolist()], max_tokens=20, temperature=0, tools=False)
    assert answer.tolist() == completion.ids


def test_tiktoken_reads_the_same_ids(tmp_path, tokenizer):
    encoding = load(to_tiktoken(tokenizer, tmp_path / "tiktoken"))
    text = TEXT[0] + " <|bos|> ſ's \u2003 x"
    assert encoding.encode_ordinary(text) == tokenizer.encode(text)
    assert encoding.decode(tokenizer.encode(text)) == text
    assert encoding.encode("<|bos|>", allowed_special="all") == [tokenizer.bos]
    assert encoding.n_vocab == tokenizer.vocab_size


@pytest.fixture(scope="module")
def program(tmp_path_factory, tokenizer, model):
    """The compiled C program with its model, as a function of its arguments."""
    folder = to_c(model, tokenizer, tmp_path_factory.mktemp("c") / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "run.c"]
    return compiled(folder)


def compiled(folder):
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fsanitize=address,undefined"]
    subprocess.run(["cc", "-O2", *strict, "-o", folder / "run", folder / "run.c", "-lm"], check=True)

    def run(*arguments, stdin="", check=True):
        return subprocess.run(
            [folder / "run", folder / "model.bin", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
            encoding="utf-8",
            errors="replace",
        )

    return run


def ids_of(done) -> list[int]:
    return [int(i) for i in done.stdout.split(",")]


@pytest.mark.parametrize("text", ["hello", "What's 12+30? 1234567", "안녕 😉 é", "x " * 30])
def test_the_c_program_chooses_the_engines_tokens(program, tokenizer, model, text):
    ids = tokenizer.render_for_completion({"messages": [{"role": "user", "content": text}]})
    [[completion]] = Engine(model, tokenizer, dtype=torch.float32).generate([ids], max_tokens=60, temperature=0)
    assert ids_of(program("-i", ",".join(map(str, ids)), "-n", "60")) == completion.ids


def test_the_c_program_calls_its_calculator_as_the_engine_does(tmp_path, tokenizer):
    model = rigged_model(tokenizer)
    run = compiled(to_c(model, tokenizer, tmp_path / "out"))
    ids = tokenizer.render_for_completion({"messages": [{"role": "user", "content": "hello"}]})
    [[completion]] = Engine(model, tokenizer, dtype=torch.float32).generate([ids], temperature=0)
    assert completion.mask.count(0) > 2 and completion.text == SAID
    assert ids_of(run("-i", ",".join(map(str, ids)))) == completion.ids
    printed = f"{SAID[:2]} [{CALL} = {RESULT}] {SAID[2:]}\n"
    assert run("-p", "hello").stdout == printed
    assert run(stdin="hello\nhello\n\n").stdout == f"> {printed}> {printed}> "


def test_the_c_program_chats_past_the_end_of_its_context(program):
    printed = program("-n", "30", stdin="hello there\n" * 6).stdout
    assert "a new conversation begins" in printed
    assert program("-p", "x " * 300, check=False).returncode == 2


# run.c has no switch that only encodes; the chat's first step is reached with -n 0 only. So its tokenizer is compiled
# alone.
ENCODER = """
#define main unused_main
#include "run.c"
#undef main
int main(int argc, char **argv) {
    (void)argc; load(argv[1]); index_tokens();
    static char line[1 << 16], text[1 << 15];
    static int ids[1 << 15];
    while (fgets(line, sizeof line, stdin)) {
        size_t n = 0;
        for (char *p = line; p[0] > 32 && p[1] > 32; p += 2) { char hex[3] = {p[0], p[1], 0}; text[n++] =
        (char)strtol(hex, NULL, 16); } text[n] = 0; char result[512]; if (argv[2][0] == 'c') printf("%s\\n",
        calculate(text, result, sizeof result) ? result : "None"); else { int count = encode(text, ids); for (int i =
        0; i < count; i++) printf("%d ", ids[i]); printf("\\n"); } fflush(stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def parts_of_run_c(tmp_path_factory, tokenizer, model):
    """run.c's encoder and calculator, each as a function of a text; one process for all questions."""
    folder = to_c(model, tokenizer, tmp_path_factory.mktemp("c") / "out")
    (folder / "test.c").write_text(ENCODER)
    subprocess.run(
        [
            "cc",
            "-O1",
            "-fsanitize=address,undefined",
            "-Wno-unused-function",
            "-o",
            folder / "test",
            folder / "test.c",
            "-lm",
        ],
        check=True,
    )
    processes = {
        what: subprocess.Popen(
            [folder / "test", folder / "model.bin", what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for what in ("encode", "calculate")
    }

    def ask(what, text):
        process = processes[what]
        process.stdin.write(text.encode().hex() + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    yield ask
    for process in processes.values():
        process.communicate()
        assert process.returncode == 0


odd = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("aZſé5٣½ \t\n\r\u00a0\u2003\u3000'’.,-!?😉안\u0301\u200b")), st.characters(codec="utf-8")
    ),
    max_size=40,
)
pieces = st.lists(
    st.sampled_from(
        [
            "'s",
            "'LL",
            "'Re",
            "'ſ",
            "don't",
            "12345",
            "  ",
            " \n ",
            "\r\n",
            "<|bos|>",
            "The",
            " quick",
            "안녕하세요",
            "😉😉",
            "'",
        ]
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(odd, pieces.map("".join)))
def test_the_c_program_encodes_as_the_tokenizer_does(parts_of_run_c, tokenizer, text):
    text = text.replace("\0", "")  # ends a C string
    assert [int(i) for i in parts_of_run_c("encode", text).split()] == tokenizer.encode(text)


numbers = st.one_of(
    st.integers(0, 9999).map(str),
    st.sampled_from(["1,234", "12,345.5", "0.1", "2.50", "007", "1,23", ".5", "5.", "00"]),
)
sums = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" + ", "-", "*", "/", " - "]), inner).map("".join)
        | inner.map(lambda s: f"({s})")
        | inner.map(lambda s: f"-{s}")
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(sums)
def test_the_c_program_calculates_as_the_sandbox_does(parts_of_run_c, expression):
    expected, got = calculate(expression), parts_of_run_c("calculate", expression)
    if expected is not None and abs(float(expected)) >= 2**53:
        assert got == "None"
    else:
        assert got == str(expected)


@pytest.mark.parametrize(
    "text",
    ["", "x", "2**3", "1/0", "(1", "1)", "1 2", "'a'.count('a')", "9" * 100, "(" * 100, "1+", "--", "1e5", "5 % 2"],
)
def test_what_is_no_sum_has_no_result(parts_of_run_c, text):
    assert parts_of_run_c("calculate", text) == "None"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, tokenizer, model):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        to_hf(model, tokenizer, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_export_leaves_nothing(tmp_path, tokenizer, model, monkeypatch):
    monkeypatch.setattr(
        type(tokenizer), "to_hf", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UserError, match="No space left on device"):
        to_hf(model, tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_split_pattern_and_an_unknown_format_are_refused(tmp_path, tokenizer, model):
    from nanochat.serve.export.c import digits

    with pytest.raises(UserError, match="split pattern"):
        digits(r"\s+|\S+")
    with pytest.raises(UserError, match="choose one of hf, tiktoken, c"):
        export(None, "onnx", tmp_path / "out")


def test_the_config_says_what_transformers_needs(tmp_path, tokenizer, model):
    folder = to_hf(model, tokenizer, tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"], config["max_position_embeddings"]) == (
        "nanochat",
        tokenizer.vocab_size,
        96,
    )
    assert (
        config["eos_token_id"][0] == tokenizer.special["<|assistant_end|>"] and config["bos_token_id"] == tokenizer.bos
    )
