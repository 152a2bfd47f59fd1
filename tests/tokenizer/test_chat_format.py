"""Rendering: which tokens a conversation becomes, and which of them are trained on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_text import texts

from nanochat.runtime import UserError
from nanochat.tokenizer import SPECIAL_TOKENS


def user(text):
    return {"role": "user", "content": text}


def assistant(content):
    return {"role": "assistant", "content": content}


def rendered(tokenizer, *messages, max_tokens=None):
    ids, mask = tokenizer.render_conversation({"messages": list(messages)}, max_tokens)
    assert len(ids) == len(mask)
    return ids, mask


def pieces(tokenizer, *parts):
    """(ids, mask) put together from (special token or text, mask) pairs."""
    ids, mask = [], []
    for text, trained in parts:
        tokens = [tokenizer.special[text]] if text in SPECIAL_TOKENS else tokenizer.encode(text)
        ids += tokens
        mask += [trained] * len(tokens)
    return ids, mask


def test_the_nine_special_tokens_in_their_order():
    assert " ".join(SPECIAL_TOKENS) == (
        "<|bos|> <|user_start|> <|user_end|> <|assistant_start|> <|assistant_end|> "
        "<|python_start|> <|python_end|> <|output_start|> <|output_end|>"
    )


def test_only_what_the_assistant_writes_is_trained_on(tokenizer):
    expected = pieces(
        tokenizer,
        ("<|bos|>", 0), ("<|user_start|>", 0), ("What is 2+3?", 0), ("<|user_end|>", 0),
        ("<|assistant_start|>", 0), ("I add: ", 1),
        ("<|python_start|>", 1), ("2+3", 1), ("<|python_end|>", 1),
        ("<|output_start|>", 0), ("5", 0), ("<|output_end|>", 0),
        ("It is 5.", 1), ("<|assistant_end|>", 1),
        ("<|user_start|>", 0), ("Thanks", 0), ("<|user_end|>", 0),
        ("<|assistant_start|>", 0), ("You're welcome.", 1), ("<|assistant_end|>", 1),
    )  # fmt: skip
    answer = [
        {"type": "text", "text": "I add: "},
        {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"},
        {"type": "text", "text": "It is 5."},
    ]
    chat = [user("What is 2+3?"), assistant(answer), user("Thanks"), assistant("You're welcome.")]
    assert rendered(tokenizer, *chat) == expected


def test_a_system_message_joins_the_first_user_message(tokenizer):
    chat = [user("Hi"), assistant("Hello"), user("Bye"), assistant("Bye")]
    merged = [user("Be kind.\n\nHi"), *chat[1:]]
    assert rendered(tokenizer, {"role": "system", "content": "Be kind."}, *chat) == rendered(tokenizer, *merged)


def test_rendering_leaves_the_conversation_alone(tokenizer):
    conversation = {"messages": [{"role": "system", "content": "S"}, user("U"), assistant("A")]}
    before = repr(conversation)
    tokenizer.render_conversation(conversation)
    tokenizer.render_for_completion(conversation)
    assert repr(conversation) == before


@given(st.lists(st.one_of(texts, st.sampled_from(SPECIAL_TOKENS)), min_size=2, max_size=6), st.booleans())
def test_no_text_opens_or_closes_a_turn(tokenizer, contents, in_parts):
    def turn(i, text):
        return user(text) if i % 2 == 0 else assistant([{"type": "python", "text": text}] if in_parts else text)

    ids, _ = rendered(tokenizer, *[turn(i, text) for i, text in enumerate(contents)])
    specials = [i for i in ids if i >= tokenizer.bos]
    plain, _ = rendered(tokenizer, *[turn(i, "x") for i in range(len(contents))])
    assert specials == [i for i in plain if i >= tokenizer.bos]


@given(st.integers(0, 40))
def test_truncation_keeps_ids_and_mask_aligned(tokenizer, max_tokens):
    chat = [user("How are you today?"), assistant("Fine, and how is the town?")]
    ids, mask = rendered(tokenizer, *chat)
    assert rendered(tokenizer, *chat, max_tokens=max_tokens) == (ids[:max_tokens], mask[:max_tokens])


def test_the_prompt_is_the_conversation_up_to_the_answer(tokenizer):
    chat = [user("Hi"), assistant("Hello"), user("Who are you?"), assistant("A model.")]
    prompt = tokenizer.render_for_completion({"messages": chat})
    assert prompt == tokenizer.render_for_completion({"messages": chat[:-1]})
    assert prompt[-1] == tokenizer.special["<|assistant_start|>"]
    ids, mask = rendered(tokenizer, *chat)
    assert ids[: len(prompt)] == prompt
    assert mask[len(prompt) :] == [1] * (len(ids) - len(prompt))


def test_a_document_is_trained_on_whole_but_for_its_bos(tokenizer):
    ids, mask = tokenizer.render({"text": "A story."})
    assert ids == [tokenizer.bos, *tokenizer.encode("A story.")]
    assert mask == [0] + [1] * (len(ids) - 1)
    assert tokenizer.render({"text": "A story."}, max_tokens=2) == (ids[:2], mask[:2])
    assert tokenizer.render({"text": "A story."}, max_tokens=0) == ([], [])
    assert tokenizer.render({"text": ""}) == ([tokenizer.bos], [0])


def test_render_takes_conversations_too(tokenizer):
    conversation = {"messages": [user("Hi"), assistant("Hello")]}
    assert tokenizer.render(conversation, 3) == tokenizer.render_conversation(conversation, 3)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "at least one message"),
        (["Hi"], "each message must be"),
        ([assistant("Hi")], "message 0 has role 'assistant' where 'user' is due"),
        ([user("a"), user("b")], "message 1 has role 'user' where 'assistant' is due"),
        ([user("a"), {"role": "tool", "content": "b"}], "message 1 has role 'tool'"),
        ([user("a"), {"content": "b"}], "message 1 has role None"),
        ([{"role": "system", "content": "s"}], "followed by a user message"),
        ([{"role": "system", "content": "s"}, assistant("b")], "followed by a user message"),
        ([{"role": "system", "content": 1}, user("a")], "must be a string"),
        ([user(None)], "content of message 0 .user. must be a string, not NoneType"),
        ([user([{"type": "text", "text": "a"}])], "must be a string, not list"),
        ([user("a"), assistant(7)], "a string or a list of parts, not int"),
        ([user("a"), assistant([{"type": "image", "text": "b"}])], "a part must be"),
        ([user("a"), assistant([{"type": "text"}])], "a part must be"),
    ],
)
def test_a_malformed_conversation_is_refused_in_one_line(tokenizer, messages, complaint):
    for render in (tokenizer.render_conversation, tokenizer.render_for_completion):
        with pytest.raises(UserError, match=complaint) as error:
            render({"messages": messages})
        assert "\n" not in str(error.value)


def test_visualize_shows_every_token_and_escapes_html(tokenizer):
    ids, mask = rendered(tokenizer, user("<b>\n"), assistant("x"))
    terminal, page = tokenizer.visualize(ids, mask), tokenizer.visualize(ids, mask, as_html=True)
    assert terminal.count("\033[31m") == mask.count(0)
    assert terminal.count("\033[32m") == mask.count(1)
    assert page.count("<span") == len(ids)
    assert "<b>" not in page
