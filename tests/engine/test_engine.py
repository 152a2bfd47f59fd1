"""What an answer is: the model's own words, whatever shares the batch, ended in the way its reason says."""

import gc
import random
import weakref

import pytest
import torch

from nanochat.engine import Engine
from nanochat.engine import engine as engine_module
from nanochat.runtime import UserError

RAGGED = [[256, 10], [256, 1, 2, 3, 4, 5, 6, 7], [256], [256, 99, 98, 97]]


def greedy_without_cache(model, prompt, n, ends):
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt):]


@pytest.mark.parametrize("n_kv_head", [1, 2])
def test_greedy_with_the_cache_is_greedy_without_it(make_model, tokenizer, n_kv_head):
    model = make_model(n_kv_head)
    answers = Engine(model, tokenizer).generate(RAGGED, max_tokens=40, temperature=0, tools=False)
    ends = (tokenizer.bos, tokenizer.special["<|assistant_end|>"])
    for prompt, (answer,) in zip(RAGGED, answers):
        assert answer.ids == greedy_without_cache(model, prompt, 40, ends)


def test_a_batch_says_what_each_prompt_says_alone(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer)
    together = engine.generate(RAGGED, num_samples=3, max_tokens=30, seed=5)
    for prompt, answers in zip(RAGGED, together):
        assert engine.generate([prompt], num_samples=3, max_tokens=30, seed=5)[0] == answers


def test_a_sample_does_not_depend_on_how_many_are_asked_for_or_on_the_batch_size(make_model, tokenizer):
    model = make_model()
    wide, narrow = Engine(model, tokenizer), Engine(model, tokenizer, max_rows=3)
    prompts = RAGGED + [[256, 50 + i, i] for i in range(10)]
    random.Random(0).shuffle(prompts)
    a, b = wide.generate(prompts, num_samples=4, max_tokens=25), narrow.generate(prompts, num_samples=2, max_tokens=25)
    assert [group[:2] for group in a] == b


def test_samples_and_seeds_differ(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer)
    first, second = engine.generate([[256, 7]], num_samples=2, max_tokens=30)[0]
    (other,) = engine.generate([[256, 7]], max_tokens=30, seed=1)[0]
    assert len({tuple(c.ids) for c in (first, second, other)}) == 3


def test_rows_that_end_early_leave_the_batch_and_change_nobody(make_model, tokenizer, monkeypatch):
    model = make_model()
    engine, sizes = Engine(model, tokenizer), []
    step = Engine._step
    monkeypatch.setattr(Engine, "_step", lambda self, rows, cache: sizes.append(len(rows)) or step(self, rows, cache))
    prompts = [[256, i] for i in range(32)]
    packed = engine.generate(prompts, max_tokens=60, temperature=1.5)
    assert sizes[-1] < 32 and any(c.finish_reason == "stop" for (c,) in packed)
    monkeypatch.setattr(engine_module, "ALIVE", -1.0)             # never pack
    assert engine.generate(prompts, max_tokens=60, temperature=1.5) == packed


def test_an_answer_ends_at_assistant_end_or_bos_and_keeps_that_token(scripted, tokenizer):
    for end in (tokenizer.special["<|assistant_end|>"], tokenizer.bos):
        model = scripted([*b"yes", end, *b"no"])
        ((answer,),) = Engine(model, tokenizer).generate([[256, 259]], temperature=0)
        assert (answer.ids, answer.mask, answer.text) == ([*b"yes", end], [1] * 4, "yes")
        assert answer.finish_reason == "stop"


def test_an_answer_that_is_cut_says_length(scripted, tokenizer):
    ((answer,),) = Engine(scripted(list(b"abc")), tokenizer).generate([[256, 259]], max_tokens=7, temperature=0)
    assert (answer.text, answer.finish_reason) == ("abcabca", "length")


def test_prompt_and_answer_together_fit_the_context(scripted, tokenizer):
    engine = Engine(scripted(list(b"abc"), sequence_len=16), tokenizer)
    for n, expected in ((14, 2), (15, 1), (16, 0)):
        prompt = [1] * (n - 1) + [259]
        ((answer,),) = engine.generate([prompt], max_tokens=50, temperature=0)
        assert (len(answer.ids), answer.finish_reason) == (expected, "length")
        assert "".join(engine.stream(prompt, max_tokens=50, temperature=0)) == answer.text
    answers = engine.generate([[1] * 15 + [259], [259], [1] * 12 + [259]], max_tokens=50, temperature=0)
    assert [len(a.ids) for (a,) in answers] == [0, 15, 3]


def test_prompts_and_settings_out_of_range_are_refused_in_one_line(make_model, tokenizer):
    engine = Engine(make_model(sequence_len=16), tokenizer)
    for prompt in ([], [1] * 17, [-1], [10**6]):
        with pytest.raises(UserError) as error:
            engine.generate([[1], prompt])
        assert "\n" not in str(error.value)
    for bad in ({"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"max_tokens": 0},
                {"stop": "x"}, {"stop": ("",)}):
        with pytest.raises(UserError):
            engine.generate([[1]], **bad)
        with pytest.raises(UserError):
            engine.stream([1], **bad)


def test_at_least_one_sample(make_model, tokenizer):
    with pytest.raises(UserError, match="num_samples"):
        Engine(make_model(), tokenizer).generate([[1]], num_samples=0)


def test_no_prompts_no_answers(make_model, tokenizer):
    assert Engine(make_model(), tokenizer).generate([]) == []


def test_a_stop_string_ends_the_answer_before_it(scripted, tokenizer):
    engine = Engine(scripted(list(b"one, two; three")), tokenizer)
    ((answer,),) = engine.generate([[259]], temperature=0, stop=("; t", "two; x"))
    assert (answer.text, answer.finish_reason) == ("one, two", "stop")
    assert "".join(engine.stream([259], temperature=0, stop=("; t",))) == "one, two"


@pytest.mark.parametrize("stop", [(), ("\N{SNOWMAN}",), ("ab", "q")])
def test_streamed_pieces_join_to_the_text(make_model, tokenizer, stop):
    engine = Engine(make_model(), tokenizer)
    for seed in range(8):
        ((answer,),) = engine.generate([[256, seed]], max_tokens=40, seed=seed, stop=stop)
        assert "".join(engine.stream([256, seed], max_tokens=40, seed=seed, stop=stop)) == answer.text


def test_a_stream_returns_the_completion(make_model, tokenizer):
    engine, stream = Engine(make_model(), tokenizer), []

    def collect(prompt):
        stream.append((yield from engine.stream(prompt, max_tokens=20, seed=3)))

    for prompt in ([256, 5], [1] * 64):
        list(collect(prompt))
        assert stream[-1] == engine.generate([prompt], max_tokens=20, seed=3)[0][0]


def test_a_stream_never_splits_a_character(scripted, tokenizer):
    text = "ä→\N{SNOWMAN}🦜 end"
    pieces = list(Engine(scripted([*text.encode(), tokenizer.bos]), tokenizer).stream([259], temperature=0))
    assert pieces == list(text)


def test_a_stream_starts_early_and_frees_its_cache_when_closed(make_model, tokenizer, monkeypatch):
    caches = []
    cache = engine_module.KVCache
    monkeypatch.setattr(engine_module, "KVCache", lambda *a: caches.append(weakref.ref(c := cache(*a))) or c)
    engine, steps = Engine(make_model(), tokenizer), []
    step = Engine._step
    monkeypatch.setattr(Engine, "_step", lambda self, rows, c: steps.append(weakref.ref(c)) or step(self, rows, c))
    stream = engine.stream([256, 1], max_tokens=60, seed=2)
    next(stream)
    assert len(steps) < 20
    next(stream)
    assert steps[-1]() is not None
    stream.close()
    gc.collect()
    assert all(ref() is None for ref in steps + caches)


def test_refresh_takes_over_new_weights_in_place(make_model, tokenizer):
    old, new = make_model(seed=0), make_model(seed=1)
    engine = Engine(old, tokenizer)
    places = [p.data_ptr() for p in engine.model.parameters()]
    before = engine.generate([[256, 1]], max_tokens=20)
    engine.refresh(new)
    after = engine.generate([[256, 1]], max_tokens=20)
    assert after == Engine(new, tokenizer).generate([[256, 1]], max_tokens=20) != before
    assert [p.data_ptr() for p in engine.model.parameters()] == places


def test_weights_are_stored_in_the_inference_dtype(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.bfloat16)
    assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}
    ((answer,),) = engine.generate([[256, 1]], max_tokens=5)
    assert answer.ids
