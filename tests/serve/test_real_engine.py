"""Server, terminal and chat box on the real engine and a real (rigged) model."""

import httpx
import openai
import pytest
import torch
from rigged import CALL, RESULT, SAID, rigged_model
from serve_fakes import NAME, live, prompt_ids, tokenizer

from nanochat.engine import Engine
from nanochat.runtime import UserError, World, open_run
from nanochat.serve import terminal
from nanochat.serve.export import export
from nanochat.serve.reply import reply_with
from nanochat.serve.terminal import print_answer
from nanochat.serve.widget import ChatBox
from nanochat.train.saver import Saver

PARTS = [
    {"type": "text", "text": "ab"},
    {"type": "python", "text": CALL},
    {"type": "python_output", "text": RESULT},
    {"type": "text", "text": SAID[2:]},
]


@pytest.fixture(scope="module")
def engine():
    torch.set_num_threads(1)
    return Engine(rigged_model(tokenizer()), tokenizer(), dtype=torch.float32)


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(**options):
    return {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "temperature": 0, **options}


def test_the_answer_its_parts_and_the_usage_are_the_engines(client, engine):
    [[completion]] = engine.generate([prompt_ids("hello")], temperature=0)
    assert (completion.text, completion.parts) == (SAID, PARTS)
    answer = client.chat.completions.create(**ask())
    assert answer.choices[0].message.content == SAID and answer.choices[0].message.parts == PARTS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(completion.ids)
    assert answer.usage.prompt_tokens == len(prompt_ids("hello"))


def test_the_stream_says_the_same(client, engine):
    chunks = list(client.chat.completions.create(**ask(), stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == SAID
    assert [delta.part for delta in deltas if "part" in (delta.model_extra or {})] == PARTS[1:3]
    assert chunks[-1].usage == client.chat.completions.create(**ask()).usage


@pytest.mark.parametrize("seed", range(5))
def test_sampled_streams_joined_equal_the_whole_answer(client, seed):
    options = ask(temperature=2, max_tokens=40, seed=seed, n=2)
    whole = client.chat.completions.create(**options)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_stop_and_length(client):
    stopped = client.chat.completions.create(**ask(stop=["ok"])).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("ab", "stop")
    cut = client.chat.completions.create(**ask(max_tokens=2))
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason, cut.usage.completion_tokens) == (
        "ab",
        "length",
        2,
    )


def test_odd_settings_are_served(url):
    for options in (
        {"top_k": 0},
        {"top_k": 10**6},
        {"top_p": 1e-300},
        {"temperature": 1e-300},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
        {"max_tokens": 1},
        {"top_p": 1, "top_k": 1, "temperature": 2},
    ):
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask(**{"max_tokens": 3, **options}), timeout=20)
        assert answer.status_code == 200, (options, answer.text)


def test_a_context_with_room_for_one_token(engine):
    small = Engine(
        rigged_model(tokenizer(), sequence_len=len(prompt_ids("hello")) + 1), tokenizer(), dtype=torch.float32
    )
    with live(small) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask(), timeout=20).json()
        assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("a", "length")
        refused = httpx.post(
            f"{url}/v1/chat/completions", json=ask(messages=[{"role": "user", "content": "hello!"}]), timeout=20
        )
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "context_length_exceeded"


def test_terminal_and_chat_box_say_it_too(engine, capsys):
    reply = reply_with(engine, temperature=0)
    print_answer(reply, "hello")
    assert capsys.readouterr().out == SAID + "\n"
    chat = ChatBox(reply)
    assert chat.say("hello") == SAID
    assert chat.history[-1]["content"] == PARTS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with a chat model, as the stages leave it."""
    run = open_run(tmp_path_factory.mktemp("runs") / "mine", scale="smoke", create=True)
    tokenizer().save(run / "tokenizer")
    state = {"tokenizer": tokenizer().digest}
    with Saver(run / "sft", World()) as saver:
        saver.start(1, model=rigged_model(tokenizer()), optim={}, data={}, state=state)
    return run


def test_a_run_directory_is_chatted_with(run, capsys):
    terminal.chat(run, "hello", temperature=0)
    assert capsys.readouterr().out == SAID + "\n"
    with pytest.raises(UserError, match="no finished checkpoint of stage rl"):
        terminal.chat(run, "hello", stage="rl")


@pytest.mark.parametrize(
    ("to", "files"),
    [
        (
            "hf",
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
        ),
        ("tiktoken", ["encoding.json", "nanochat.tiktoken"]),
        ("c", ["model.bin", "run.c"]),
    ],
)
def test_a_run_directory_is_exported(run, tmp_path, to, files):
    folder = export(run, to, tmp_path / to)
    assert sorted(path.name for path in folder.iterdir()) == files
