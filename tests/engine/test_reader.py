"""Ids become text: whole characters, no specials, tool calls in parts of their own, nothing beyond a stop string."""

from hypothesis import given
from hypothesis import strategies as st

from nanochat.engine import Reader


def read(tokenizer, ids, stop=()):
    reader = Reader(tokenizer, stop)
    pieces = [reader.feed(i) for i in ids] + [reader.close()]
    return pieces, reader


@given(st.binary(max_size=60))
def test_pieces_join_to_the_decoded_bytes(tokenizer, data):
    pieces, reader = read(tokenizer, list(data))
    assert "".join(pieces) == reader.text == data.decode("utf-8", "replace")


@given(st.text(max_size=30))
def test_no_piece_of_valid_text_holds_half_a_character(tokenizer, text):
    pieces, _ = read(tokenizer, list(text.encode()))
    assert "".join(pieces) == text and all(len(p) <= 1 for p in pieces)


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(tokenizer, text, stop):
    """The stop that is complete first counts; of several complete at once the one that begins first."""
    pieces, reader = read(tokenizer, list(text.encode()), tuple(stop))
    expected = text
    for end in range(len(text) + 1):
        found = [text[:end].find(s) for s in stop if s in text[:end]]
        if found:
            expected = text[: min(found)]
            break
    assert "".join(pieces) == reader.text == expected
    assert reader.stopped == (expected != text or any(s in text for s in stop))


def test_tool_calls_are_parts_of_their_own(tokenizer):
    s = tokenizer.special
    ids = [*b"so ", s["<|python_start|>"], *b"6*7", s["<|python_end|>"],
           s["<|output_start|>"], *b"42", s["<|output_end|>"], *b"42.", s["<|assistant_end|>"]]
    pieces, reader = read(tokenizer, ids)
    assert reader.parts == [{"type": "text", "text": "so "}, {"type": "python", "text": "6*7"},
                            {"type": "python_output", "text": "42"}, {"type": "text", "text": "42."}]
    assert "".join(pieces) == reader.text == "so 42."


def test_a_character_cut_by_a_tool_call_is_replaced_not_joined(tokenizer):
    s = tokenizer.special
    _, reader = read(tokenizer, [0xE2, s["<|python_start|>"], 0x98, s["<|python_end|>"], 0x83])
    assert [p["text"] for p in reader.parts] == ["\ufffd", "\ufffd", "\ufffd"]
