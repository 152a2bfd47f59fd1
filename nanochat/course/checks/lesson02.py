"""Lesson 02, the tokenizer at scale: the cases of its exercises, and what `use` gives where the library has none.

Oracles count everything anew where the answers keep books, and render to names where the answers make ids.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

import regex

from nanochat.tokenizer.chat import SPECIAL_TOKENS

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_count_chunks(texts: Iterable[str], pattern: str) -> Counter:
    """How often each chunk occurs in all `texts`: a Counter {bytes: count}."""
    counts: Counter = Counter()
    for text in texts:
        counts.update(chunk.encode("utf-8") for chunk in regex.findall(pattern, text))
    return counts


def reference_apply_merge(words, times, counts, where, pair, new) -> set[tuple[int, int]]:
    """Merge `pair` in the words that hold it, keep the books exact; the set of pairs with `new` in them."""
    from nanochat.tokenizer.bpe import merge

    fresh = set()
    for number in where.pop(pair):
        for old in pairwise(words[number]):
            counts[old] -= times[number]
        words[number] = merge(words[number], pair, new)
        for now in pairwise(words[number]):
            counts[now] += times[number]
            where[now].add(number)
            if new in now:
                fresh.add(now)
    return fresh


def reference_pop_best(heap, counts) -> tuple[int, int] | None:
    """The most frequent pair, taken off a heap of (-count, pair) whose counts may be out of date."""
    while heap:
        negative, pair = heapq.heappop(heap)
        now = counts.get(pair, 0)
        if now == -negative and now:
            return pair
        if now:
            heapq.heappush(heap, (-now, pair))
    return None


def reference_bytes_per_token(tokenizer, texts: Iterable[str]) -> float:
    """Bytes of UTF-8 per token, over all `texts`."""
    total = tokens = 0
    for text in texts:
        total += len(text.encode("utf-8"))
        tokens += len(tokenizer.encode(text))
    return total / tokens


# ---------------------------------------------------------------------------------------------------------------------
# 02.count_chunks

PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _equal(got, wanted, what: str) -> None:
    extra = {k: v for k, v in dict(got).items() if wanted.get(k) != v}
    missing = {k: v for k, v in wanted.items() if dict(got).get(k) != v}
    assert not extra and not missing, f"{what}: wrong are {_short(extra)}; should be {_short(missing)}"


def _short(value, most: int = 70) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def counts_the_chunks_of_the_example(count_chunks):
    "'the' and ' the' are two chunks, each counted"
    got = count_chunks(["the cat", " the dog", " the cat"], PATTERN)
    _equal(got, {b"the": 1, b" the": 2, b" cat": 2, b" dog": 1}, "the example with a third text")


def keeps_texts_apart(count_chunks):
    "the end of one text and the beginning of the next make no chunk"
    got = count_chunks(["over", "all", "7", "7"], PATTERN)
    _equal(got, {b"over": 1, b"all": 1, b"7": 2}, "four texts of one chunk")


def makes_bytes(count_chunks):
    "a chunk is its UTF-8 bytes, also where it is not ASCII"
    got = count_chunks(["añ 안 añ"], PATTERN)
    _equal(got, {"añ".encode(): 1, " 안".encode(): 1, " añ".encode(): 1}, "Spanish and Korean")


def splits_by_the_pattern_it_is_given(count_chunks):
    "another pattern, other chunks"
    _equal(count_chunks(["12 34"], r"\d+|\s"), {b"12": 1, b" ": 1, b"34": 1}, r"\d+|\s on '12 34'")
    _equal(count_chunks(["1234"], r"\d{1,2}"), {b"12": 1, b"34": 1}, r"\d{1,2} on '1234'")


def reads_one_text_at_a_time(count_chunks):
    "texts come from an iterator and are not collected first: memory holds one, not all"
    class Text(str):
        alive = 0

        def __new__(cls, value):
            Text.alive += 1
            return super().__new__(cls, value)

        def __del__(self):
            Text.alive -= 1

    most = 0

    def stream() -> Iterator[str]:
        nonlocal most
        for _ in range(20):
            yield Text("one two")
            most = max(most, Text.alive)

    got = count_chunks(stream(), PATTERN)
    _equal(got, {b"one": 20, b" two": 20}, "twenty texts")
    assert most < 10, f"{most} of 20 texts were held in memory at once"


# ---------------------------------------------------------------------------------------------------------------------
# 02.apply_merge


def _books(chunks: dict[bytes, int]):
    words, times = [list(chunk) for chunk in chunks], list(chunks.values())
    return words, times, _recount(words, times), _places(words)


def _recount(words, times) -> Counter:
    counts: Counter = Counter()
    for ids, n in zip(words, times):
        for i in range(len(ids) - 1):
            counts[ids[i], ids[i + 1]] += n
    return counts


def _places(words) -> defaultdict:
    where = defaultdict(set)
    for number, ids in enumerate(words):
        for i in range(len(ids) - 1):
            where[ids[i], ids[i + 1]].add(number)
    return where


def _merged(ids, pair, new) -> list[int]:
    text = "".join(chr(0xF0000 + i) for i in ids)
    old = "".join(chr(0xF0000 + i) for i in pair)
    return [ord(c) - 0xF0000 for c in text.replace(old, chr(0xF0000 + new))]


def _random_chunks() -> dict[bytes, int]:
    return {bytes(random.choices(b"ab", k=random.randint(1, 9)) + [i]): random.randint(1, 9) for i in range(20)}


def merges_the_words_of_the_example(apply_merge):
    "the words of the box, their ids after the merge and the pairs returned"
    words, times, counts, where = _books({b"the": 3, b" then": 2, b"hat": 1})
    got = apply_merge(words, times, counts, where, (116, 104), 256)
    assert words == [[256, 101], [32, 256, 101, 110], [104, 97, 116]], f"words are {words}"
    assert got is not None and set(got) == {(256, 101), (32, 256)}, f"returned {got}"


def keeps_counts_exact(apply_merge):
    "after each of many merges, counts are what counting all words anew gives; runs such as aaaa included"
    for _ in range(20):
        words, times, counts, where = _books(_random_chunks())
        for new in range(256, 262):
            pair = max(sorted(p for p in counts if counts[p] > 0), key=lambda p: counts[p])
            wanted = [_merged(ids, pair, new) for ids in words]
            apply_merge(words, times, counts, where, pair, new)
            assert words == wanted, f"after merging {pair} words are {_short(words)}, should be {_short(wanted)}"
            _equal({p: n for p, n in counts.items() if n}, _recount(words, times), f"counts after merging {pair}")


def knows_where_every_pair_is(apply_merge):
    "every word that holds a pair is found under it, new pairs included"
    for _ in range(20):
        words, times, counts, where = _books(_random_chunks())
        for new in range(256, 260):
            pair = max(sorted(p for p in counts if counts[p] > 0), key=lambda p: counts[p])
            apply_merge(words, times, counts, where, pair, new)
            for p, numbers in _places(words).items():
                missing = numbers - where.get(p, set())
                assert not missing, f"pair {p} is in word {words[min(missing)]}, and `where` does not say so"


def weighs_words_by_their_times(apply_merge):
    "a word that occurs a hundred times counts a hundred times"
    words, times, counts, where = _books({b"abc": 100, b"ab": 1})
    apply_merge(words, times, counts, where, (97, 98), 256)
    assert counts[256, 99] == 100, f"(256, 99) is counted {counts[256, 99]} times, not 100"


class _Locked(list):
    """A word without the pair: whoever reads it did needless work."""

    def _refuse(self, *_):
        raise AssertionError("a word that does not hold the pair was looked at")

    __iter__ = __getitem__ = __len__ = __contains__ = index = count = _refuse


def touches_only_words_with_the_pair(apply_merge):
    "words without the pair are not looked at"
    words, times, counts, where = _books({b"the": 3, b"cat": 2, b"this": 1, b"dog": 5})
    words[1], words[3] = _Locked(words[1]), _Locked(words[3])
    apply_merge(words, times, counts, where, (116, 104), 256)
    assert list(words[0]) == [256, 101] and list(words[2]) == [256, 105, 115], "the other words were not merged"


def returns_the_new_pairs(apply_merge):
    "exactly the pairs that the new token is part of"
    for _ in range(20):
        words, times, counts, where = _books(_random_chunks())
        pair = max(sorted(counts), key=lambda p: counts[p])
        got = apply_merge(words, times, counts, where, pair, 256)
        wanted = {p for p in _recount(words, times) if 256 in p}
        assert got is not None and set(got) == wanted, f"returned {_short(got)}, should be {_short(wanted)}"


# ---------------------------------------------------------------------------------------------------------------------
# 02.pop_best


def _heap(counts) -> list:
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    return heap


def _best(counts):
    return min((pair for pair in counts if counts[pair] > 0), key=lambda pair: (-counts[pair], pair), default=None)


def _random_counts() -> dict:
    return {(random.randrange(9), random.randrange(9)): random.randint(1, 12) for _ in range(30)}


def pops_the_example(pop_best):
    "an outdated entry in front goes back, the true best is returned"
    heap = [(-9, (1, 2)), (-7, (3, 4)), (-5, (5, 6))]
    got = pop_best(heap, {(1, 2): 6, (3, 4): 7, (5, 6): 5})
    assert got == (3, 4), f"returned {got}, should be (3, 4): of (1, 2) there are only 6 left"
    assert sorted(heap) == [(-6, (1, 2)), (-5, (5, 6))], f"the heap is left as {heap}"


def takes_the_smaller_of_equals(pop_best):
    "among pairs of equal count the smaller one, also after one has fallen to the other's count"
    heap = _heap({(9, 9): 7, (3, 1): 5, (1, 8): 5})
    got = pop_best(heap, {(9, 9): 5, (3, 1): 5, (1, 8): 5})
    assert got == (1, 8), f"three pairs with 5 each: returned {got}, should be (1, 8)"


def gives_all_in_order_while_counts_fall(pop_best):
    "again and again, while counts fall in between: always the best of what is left, and none is lost"
    for _ in range(20):
        counts = _random_counts()
        heap = _heap(counts)
        while counts:
            for pair in random.sample(sorted(counts), min(3, len(counts))):
                counts[pair] = random.randint(1, counts[pair])
            wanted = _best(counts)
            got = pop_best(heap, counts)
            left = counts.get(got, 0)
            assert got == wanted, f"returned {got} with {left} left, should be {wanted} with {counts[wanted]}"
            del counts[got]


def drops_pairs_that_are_gone(pop_best):
    "a pair with count zero, or without one, is never returned; None when nothing is left"
    heap = _heap({(1, 2): 5, (3, 4): 4, (5, 6): 3})
    got = pop_best(heap, {(1, 2): 0, (5, 6): 3})
    assert got == (5, 6), f"returned {got}, should be (5, 6), the only one left"
    for heap in ([], _heap({(1, 2): 5}), [(0, (1, 2))]):
        got = pop_best(heap, {(1, 2): 0})
        assert got is None, f"nothing is left, and it returned {got}"


class _Watched(dict):
    """Counts how many entries are asked for."""

    asked = 0

    def _ask(self, name, how_many, *args):
        self.asked += how_many
        return getattr(dict, name)(self, *args)

    def get(self, *args):
        return self._ask("get", 1, *args)

    def __getitem__(self, key):
        return self._ask("__getitem__", 1, key)

    def __iter__(self):
        return self._ask("__iter__", len(self))

    def items(self):
        return self._ask("items", len(self))

    def keys(self):
        return self._ask("keys", len(self))

    def values(self):
        return self._ask("values", len(self))


def looks_only_at_the_front(pop_best):
    "no search through all pairs: with one outdated entry, a handful of look-ups in a thousand"
    counts = _Watched({(i, i + 1): 2000 - i for i in range(1000)})
    heap = _heap(counts)
    counts[0, 1] = 1
    counts.asked = 0
    got = pop_best(heap, counts)
    assert got == (1, 2), f"returned {got}, should be (1, 2)"
    assert counts.asked < 20, f"counts were asked {counts.asked} times"


# ---------------------------------------------------------------------------------------------------------------------
# 02.bytes_per_token


class _Words:
    """A tokenizer for tests: one id a word."""

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def divides_bytes_by_tokens(bytes_per_token):
    "eleven bytes in two tokens are 5.5"
    got = bytes_per_token(_Words(), ["hello world"])
    assert abs(got - 5.5) < 1e-9, f"got {got}"


def counts_bytes_not_characters(bytes_per_token):
    "안녕 is six bytes"
    got = bytes_per_token(_Words(), ["안녕"])
    assert abs(got - 6) < 1e-9, f"got {got}"


def weighs_every_token_alike(bytes_per_token):
    "one division of two sums, not the mean over texts"
    got = bytes_per_token(_Words(), ["abcdefghij", "a a a a a"])
    assert abs(got - 19 / 6) < 1e-9, f"19 bytes in 6 tokens: got {got}, should be {19 / 6:.4f}"


def takes_any_iterable(bytes_per_token):
    "texts may come from an iterator, once"
    got = bytes_per_token(_Words(), (text for text in ["ab cd", "ef"]))
    assert abs(got - 7 / 3) < 1e-9, f"got {got}, should be {7 / 3:.4f}"


# ---------------------------------------------------------------------------------------------------------------------
# 02.render_conversation


class _Bytes:
    """A tokenizer for tests: ids are bytes, the special tokens stand above them."""

    def __init__(self):
        self.special = {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.bos = self.special["<|bos|>"]

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))


USER, ASSISTANT = "user", "assistant"
BRACKETS = {"text": ("", ""), "python": ("<|python_start|>", "<|python_end|>"),
            "python_output": ("<|output_start|>", "<|output_end|>")}


def _talk(*contents) -> dict:
    return {"messages": [{"role": (USER, ASSISTANT)[i % 2], "content": c} for i, c in enumerate(contents)]}


def _part(kind: str, text: str) -> dict:
    return {"type": kind, "text": text}


def _expected(conversation) -> list[tuple[str, int]]:
    """Symbols with their mask: a special token's name, or one byte as a character."""
    rows = [("<|bos|>", 0)]
    for message in conversation["messages"]:
        own = message["role"] == ASSISTANT
        parts = message["content"] if isinstance(message["content"], list) else [_part("text", message["content"])]
        rows.append((f"<|{message['role']}_start|>", 0))
        for part in parts:
            learned = int(own and part["type"] != "python_output")
            opening, closing = BRACKETS[part["type"]]
            symbols = [opening, *map(chr, part["text"].encode()), closing]
            rows += [(symbol, learned) for symbol in symbols if symbol]
        rows.append((f"<|{message['role']}_end|>", int(own)))
    return rows


NAMES = {i: name for name, i in _Bytes().special.items()}
TOOL = _talk("3*4?", [_part("text", "Let me see. "), _part("python", "3*4"), _part("python_output", "12"),
                      _part("text", "12.")], "Thanks", "Yes")


def _rendered(render_conversation, conversation) -> list[tuple[str, int]]:
    answer = render_conversation(_Bytes(), conversation)
    assert isinstance(answer, tuple) and len(answer) == 2, f"return (ids, mask), not {_short(answer)}"
    ids, mask = answer
    assert len(ids) == len(mask), f"{len(ids)} ids and {len(mask)} marks"
    assert set(mask) <= {0, 1}, f"the mask holds {set(mask) - {0, 1}}"
    return [(NAMES.get(i, chr(i) if i < 256 else f"id {i}"), m) for i, m in zip(ids, mask)]


def _find(rows, symbol: str) -> list[int]:
    marks = [mark for name, mark in rows if name == symbol]
    assert marks, f"there is no {symbol} among {_short([name for name, _ in rows])}"
    return marks


def puts_every_token_in_its_place(render_conversation):
    "the ids: bos, then each message between its start and its end"
    for conversation in (_talk("Hi", "Hello", "안녕", "Bye"), TOOL):
        got = [name for name, _ in _rendered(render_conversation, conversation)]
        wanted = [name for name, _ in _expected(conversation)]
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        assert got == wanted, f"from token {at} on: {got[at:at + 4]}, should be {wanted[at:at + 4]}"


def learns_what_the_assistant_says(render_conversation):
    "mask 1 on the assistant's words, and on none of the user's"
    rows = _rendered(render_conversation, _talk("uuu", "aaa", "uu", "aa"))
    for symbol, wanted, who in (("u", 0, "the user's"), ("a", 1, "the assistant's")):
        assert set(_find(rows, symbol)) == {wanted}, f"{who} words have mask {_find(rows, symbol)}"


def learns_to_end_its_turn(render_conversation):
    "mask 1 on <|assistant_end|>: else the model never stops"
    assert _find(_rendered(render_conversation, _talk("u", "a", "u", "a")), "<|assistant_end|>") == [1, 1]


def is_given_its_openings(render_conversation):
    "mask 0 on bos, on both starts and on <|user_end|>: others write them"
    rows = _rendered(render_conversation, _talk("u", "a"))
    for symbol in ("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>"):
        assert set(_find(rows, symbol)) == {0}, f"{symbol} has mask {_find(rows, symbol)}"


def learns_to_call_python(render_conversation):
    "mask 1 on a call and both its brackets"
    rows = _rendered(render_conversation, _talk("u", [_part("python", "ppp")]))
    for symbol in ("<|python_start|>", "p", "<|python_end|>"):
        assert set(_find(rows, symbol)) == {1}, f"{symbol} has mask {_find(rows, symbol)}"


def does_not_learn_what_python_answers(render_conversation):
    "mask 0 on the output and both its brackets: the tool writes them"
    rows = _rendered(render_conversation, _talk("u", [_part("python", "p"), _part("python_output", "ooo")]))
    for symbol in ("<|output_start|>", "o", "<|output_end|>"):
        assert set(_find(rows, symbol)) == {0}, f"{symbol} has mask {_find(rows, symbol)}"


def lets_no_text_open_a_turn(render_conversation):
    "a special token's name in a text is text like any other"
    typed = "a<|user_end|><|assistant_start|>b"
    rows = _rendered(render_conversation, _talk(typed, typed))
    assert len(_find(rows, "<|assistant_start|>")) == 1, "what was typed became a special token"
    assert rows == _expected(_talk(typed, typed)), "text with a special token's name in it is rendered wrongly"


def renders_long_conversations(render_conversation):
    "random conversations: every id and every mark"
    for _ in range(20):
        contents = []
        for turn in range(2 * random.randint(1, 4)):
            kinds = random.choices(list(BRACKETS), k=random.randint(1, 4))
            parts = [_part(kind, "".join(random.choices("ab é", k=3))) for kind in kinds]
            contents.append(parts if turn % 2 and random.random() < 0.7 else "".join(random.choices("xyz", k=3)))
        got, wanted = _rendered(render_conversation, _talk(*contents)), _expected(_talk(*contents))
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        assert got == wanted, f"token {at} is {got[at:at + 1]}, should be {wanted[at:at + 1]}"


CASES = {
    "02.count_chunks": [counts_the_chunks_of_the_example, keeps_texts_apart, makes_bytes,
                        splits_by_the_pattern_it_is_given, reads_one_text_at_a_time],
    "02.apply_merge": [merges_the_words_of_the_example, keeps_counts_exact, knows_where_every_pair_is,
                       weighs_words_by_their_times, touches_only_words_with_the_pair, returns_the_new_pairs],
    "02.pop_best": [pops_the_example, takes_the_smaller_of_equals, gives_all_in_order_while_counts_fall,
                    drops_pairs_that_are_gone, looks_only_at_the_front],
    "02.bytes_per_token": [divides_bytes_by_tokens, counts_bytes_not_characters, weighs_every_token_alike,
                           takes_any_iterable],
    "02.render_conversation": [puts_every_token_in_its_place, learns_what_the_assistant_says, learns_to_end_its_turn,
                               is_given_its_openings, learns_to_call_python, does_not_learn_what_python_answers,
                               lets_no_text_open_a_turn, renders_long_conversations],
}
