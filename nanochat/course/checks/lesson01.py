"""Lesson 01, bytes and BPE: the cases of its exercises, and what `use` gives where the library has no function for it.

Oracles are of another make than the answers: replacing inside strings of odd characters for merges, a hand-written
scanner for the split, training itself for encoding and for the parts of a token.
"""

import random
from collections import Counter
from itertools import pairwise

import regex

# ---------------------------------------------------------------------------------------------------------------------
# What `use` gives until the learner's passes


def reference_encode(text: str, merges: dict[tuple[int, int], int]) -> list[int]:
    """The ids of `text`: its bytes, merged in the order in which the merges were learned."""
    ids = list(text.encode("utf-8"))
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: merges.get(pair, float("inf")))
        if pair not in merges:
            break
        ids = _replace(ids, pair, merges[pair])
    return ids


def reference_decode(ids: list[int], vocab: dict[int, bytes]) -> str:
    """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(vocab[i] for i in ids).decode("utf-8", errors="replace")


reference_split_pattern = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


# ---------------------------------------------------------------------------------------------------------------------
# Oracles

PLANE = 0xF0000                                # ids as characters of a private plane: then str.replace is a merge


def _replace(ids, pair, new) -> list[int]:
    """`merge`, done by the string type."""
    text = "".join(chr(PLANE + i) for i in ids)
    return [ord(c) - PLANE for c in text.replace("".join(chr(PLANE + i) for i in pair), chr(PLANE + new))]


def _trained(data: bytes, count: int) -> tuple[dict[tuple[int, int], int], list[int]]:
    """Up to `count` merges of `data`, and the ids that training ended with."""
    ids, merges = list(data), {}
    for new in range(256, 256 + count):
        seen = Counter(ids[i : i + 2][0] * 65536 + ids[i + 1] for i in range(len(ids) - 1))
        if not seen:
            break
        pair = divmod(min(seen, key=lambda code: (-seen[code], code)), 65536)
        ids = _replace(ids, pair, new)
        merges[pair] = new
    return merges, ids


def _tokens(merges) -> dict[int, bytes]:
    vocab = {i: bytes([i]) for i in range(256)}
    for (a, b), new in merges.items():
        vocab[new] = vocab[a] + vocab[b]
    return vocab


def _short(value, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _words(alphabet: str, longest: int) -> str:
    return " ".join("".join(random.choices(alphabet, k=random.randint(1, longest))) for _ in range(30))


# ---------------------------------------------------------------------------------------------------------------------
# 01.pair_counts


def counts_the_example(pair_counts):
    "[1, 2, 3, 1, 2] has (1, 2) twice, (2, 3) and (3, 1) once"
    got = pair_counts([1, 2, 3, 1, 2])
    assert got == {(1, 2): 2, (2, 3): 1, (3, 1): 1}, f"got {_short(got)}"


def counts_overlapping_pairs(pair_counts):
    "in [7, 7, 7] the pair (7, 7) stands twice"
    got = pair_counts([7, 7, 7])
    assert got == {(7, 7): 2}, f"got {_short(got)}"


def keeps_the_order_of_a_pair(pair_counts):
    "(1, 2) and (2, 1) are two different pairs"
    got = pair_counts([1, 2, 1])
    assert got == {(1, 2): 1, (2, 1): 1}, f"got {_short(got)}"


def finds_nothing_in_less_than_two(pair_counts):
    "no ids, or one, have no pairs"
    for ids in ([], [5]):
        assert pair_counts(ids) == {}, f"pair_counts({ids}) is {_short(pair_counts(ids))}"


def counts_like_a_slow_search(pair_counts):
    "random ids: the same as looking for each pair at every place"
    for _ in range(20):
        ids = random.choices(range(4), k=random.randint(2, 30))
        got = pair_counts(ids)
        for a in range(4):
            for b in range(4):
                places = [i for i in range(len(ids)) if ids[i : i + 2] == [a, b]]
                assert got.get((a, b), 0) == len(places), f"({a}, {b}) stands {len(places)} times in {ids}"


# ---------------------------------------------------------------------------------------------------------------------
# 01.merge


def merges_the_example(merge):
    "merge([1, 2, 3, 1, 2], (1, 2), 4) is [4, 3, 4]"
    got = merge([1, 2, 3, 1, 2], (1, 2), 4)
    assert got == [4, 3, 4], f"got {_short(got)}"


def does_not_overlap(merge):
    "in a run of equal ids every second place is replaced: three give [4, 1], four [4, 4]"
    for run, wanted in ((2, [4]), (3, [4, 1]), (4, [4, 4]), (5, [4, 4, 1])):
        got = merge([1] * run, (1, 1), 4)
        assert got == wanted, f"{run} ones became {_short(got)}, not {wanted}"


def keeps_what_it_does_not_merge(merge):
    "ids that are not in the pair stay, the last one too; an empty list stays empty"
    for ids in ([], [1], [2, 1], [1, 3], [3, 3, 3]):
        got = merge(list(ids), (1, 2), 9)
        assert got == ids, f"merge({ids}, (1, 2), 9) is {_short(got)}"


def leaves_input_alone(merge):
    "the list you were given stays as it was"
    ids = random.choices(range(3), k=50)
    before = list(ids)
    merge(ids, (1, 2), 9)
    assert ids == before, f"your function changed it: {_short(ids)} was {_short(before)}"


def merges_like_str_replace(merge):
    "random ids: the same as replacing two characters by one in a string"
    for _ in range(200):
        ids = random.choices(range(3), k=random.randint(0, 20))
        pair = random.choice(range(3)), random.choice(range(3))
        got, wanted = merge(list(ids), pair, 9), _replace(ids, pair, 9)
        assert got == wanted, f"merge({ids}, {pair}, 9) is {_short(got)}, should be {wanted}"


# ---------------------------------------------------------------------------------------------------------------------
# 01.encode


def encodes_the_example(encode):
    "aaabdaaabac with three merges is [258, 100, 258, 97, 99]"
    got = encode("aaabdaaabac", {(97, 97): 256, (97, 98): 257, (256, 257): 258})
    assert got == [258, 100, 258, 97, 99], f"got {_short(got)}"


def encodes_bytes_not_characters(encode):
    "without merges the ids are the UTF-8 bytes"
    for text in ("", "a", "é", "안녕 😉"):
        got, wanted = encode(text, {}), list(text.encode())
        assert list(got) == wanted, f"encode({text!r}, {{}}) is {_short(got)}, should be {wanted}"


def merges_earliest_first(encode):
    "the pair that was learned first wins, even where a later one makes a longer token"
    merges = {(98, 99): 256, (97, 98): 257, (257, 99): 258}
    got = encode("abc", merges)
    assert got == [97, 256], f'"abc" is {_short(got)}: b, c was learned first, and then a, b can no longer meet'


def merges_earliest_first_wherever_it_is(encode):
    "the pair that was learned first wins, even where another stands to its left"
    merges = {(98, 99): 256, (97, 98): 257}
    got = encode("abc ab", merges)
    assert got == [97, 256, 32, 257], f'"abc ab" is {_short(got)}'


def goes_on_until_nothing_merges(encode):
    "tokens merge with tokens: eight a's become one id"
    merges = {(97, 97): 256, (256, 256): 257, (257, 257): 258}
    for n, wanted in ((8, [258]), (7, [257, 256, 97]), (1, [97])):
        got = encode("a" * n, merges)
        assert got == wanted, f"{n} a's are {_short(got)}, should be {wanted}"


def repeats_training(encode):
    "the training text gets the ids that training ended with"
    for alphabet in ("ab", "abc", "añ안"):
        text = _words(alphabet, 6)
        merges, wanted = _trained(text.encode(), 25)
        got = encode(text, merges)
        assert got == wanted, f"{_short(text)} is {_short(got)}, training left {_short(wanted)}"


def encodes_new_text(encode):
    "a text that training has not seen: merge after merge in the order of learning"
    for _ in range(10):
        merges, _ = _trained(_words("abc", 6).encode(), 20)
        text = _words("abcd", 6)
        wanted = list(text.encode())
        for pair, new in merges.items():
            wanted = _replace(wanted, pair, new)
        got = encode(text, merges)
        assert got == wanted, f"{_short(text)} is {_short(got)}, should be {_short(wanted)}"


# ---------------------------------------------------------------------------------------------------------------------
# 01.decode

BYTES = {i: bytes([i]) for i in range(256)}


def joins_before_it_decodes(decode):
    "a character whose bytes are spread over tokens comes back"
    for text in ("안", "añ안😉", "여보세요"):
        got = decode(list(text.encode()), BYTES)
        assert got == text, f"{text!r} came back as {got!r}"


def uses_the_vocabulary(decode):
    "an id stands for its bytes, however many they are; no ids for no text"
    vocab = BYTES | {256: b"the", 257: " Öl".encode()}
    for ids, wanted in (([256, 257], "the Öl"), ([257, 33], " Öl!"), ([], "")):
        got = decode(ids, vocab)
        assert got == wanted, f"{ids} is {got!r}, should be {wanted!r}"


def never_raises_for_bytes(decode):
    "bytes that are not UTF-8 become U+FFFD, and the rest of the text stays"
    for ids, wanted in (([0x80], "\ufffd"), ([104, 0xEC, 105], "h\ufffdi"), ([0xEC, 0x95], "\ufffd")):
        got = decode(ids, BYTES)
        assert got == wanted, f"{ids} is {got!r}, should be {wanted!r}"


def inverts_encoding(decode):
    "what was encoded comes back, whatever the merges"
    text = _words("añ안😉", 5)
    merges, ids = _trained(text.encode(), 30)
    got = decode(ids, _tokens(merges))
    assert got == text, f"{_short(text)} came back as {_short(got)}"


# ---------------------------------------------------------------------------------------------------------------------
# 01.split


def _kind(character: str) -> str:
    if regex.fullmatch(r"\p{L}", character):
        return "letter"
    if regex.fullmatch(r"\p{N}", character):
        return "digit"
    return "blank" if regex.fullmatch(r"\s", character) else "other"


def _scan(text: str) -> list[str]:
    """The chunks, found without a pattern."""
    chunks, at = [], 0
    kinds = [_kind(character) for character in text] + ["end"]
    while at < len(text):
        start = at + (text[at] == " " and kinds[at + 1] in ("letter", "other"))
        kind, end = kinds[start], start
        while kinds[end] == kind and not (kind == "digit" and end - start == 3):
            end += 1
        if kind == "blank" and kinds[end] != "end" and end - at > 1:
            end -= 1
        chunks.append(text[at:end])
        at = end
    return chunks


def _demand(pattern, text: str, wanted: list[str]) -> None:
    got = regex.findall(pattern, text)
    assert got == wanted, f"{text!r} is cut into {_short(got, 90)}, should be {_short(wanted, 90)}"


def loses_nothing(pattern):
    "the chunks, joined, are the text"
    for _ in range(50):
        text = "".join(random.choices("ab é안ßΩ7٣½ .,!'_\n\t  😉", k=30))
        got = "".join(match.group() for match in regex.finditer(pattern, text))
        assert got == text, f"{text!r} came back as {got!r}"


def keeps_words_whole(pattern):
    "a word is one chunk, with the blank before it; a tab or a line end is not a blank"
    _demand(pattern, "the old town", ["the", " old", " town"])
    _demand(pattern, "the\ttown\nwall", ["the", "\t", "town", "\n", "wall"])


def cuts_numbers_in_threes(pattern):
    "one to three digits a chunk, and no blank with them"
    _demand(pattern, "in 12345 7", ["in", " ", "123", "45", " ", "7"])
    _demand(pattern, "abc123", ["abc", "123"])


def keeps_punctuation_apart(pattern):
    "what is neither letter, digit nor white space is a chunk, with the blank before it"
    _demand(pattern, "what?! (no)", ["what", "?!", " (", "no", ")"])
    _demand(pattern, "a_b 1.5", ["a", "_", "b", " ", "1", ".", "5"])


def gives_the_last_blank_away(pattern):
    "of several blanks the last goes with the word after them; at the end of the text they stay together"
    _demand(pattern, "a   b", ["a", "  ", " b"])
    _demand(pattern, "a  1", ["a", " ", " ", "1"])
    _demand(pattern, "a \n\n", ["a", " \n\n"])


def knows_every_script(pattern):
    "letters and digits of all scripts are letters and digits"
    _demand(pattern, "서울에 Ωδός ٣٤٥٦", ["서울에", " Ωδός", " ", "٣٤٥", "٦"])


def cuts_like_a_scanner(pattern):
    "random text: the same chunks as a program that goes from character to character"
    for _ in range(300):
        text = "".join(random.choices("abé안7٣½.,!'\n\t\u00a0    ", k=random.randint(0, 16)))
        _demand(pattern, text, _scan(text))


# ---------------------------------------------------------------------------------------------------------------------
# 01.merge_below


def _ranks(merges) -> dict[bytes, int]:
    return {token: i for i, token in _tokens(merges).items()}


def finds_the_parts_of_the_example(merge_below):
    "abab, made of ab and ab"
    got = merge_below({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3}, b"abab", 3)
    assert got == [b"ab", b"ab"], f"got {_short(got)}"


def uses_lower_ranks_only(merge_below):
    "what has the rank itself, or a higher one, does not exist yet"
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"abc": 4, b"bc": 5}
    for rank, wanted in ((4, [b"ab", b"c"]), (3, [b"a", b"b", b"c"]), (5, [b"abc"])):
        got = merge_below(ranks, b"abc", rank)
        assert got == wanted, f"b'abc' below {rank} is {_short(got)}, should be {wanted}"


def merges_the_lowest_rank_first(merge_below):
    "not the first place where something fits, but the lowest rank"
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5}
    got = merge_below(ranks, b"abc", 5)
    assert got == [b"a", b"bc"], f"b'abc' is {_short(got)}, should be [b'a', b'bc']: bc has a lower rank than ab"


def takes_the_left_of_equals(merge_below):
    "the same rank twice: the left place first"
    ranks = {b"a": 0, b"aa": 1, b"aaa": 2}
    got = merge_below(ranks, b"aaa", 2)
    assert got == [b"aa", b"a"], f"b'aaa' is {_short(got)}, should be [b'aa', b'a']"


def finds_the_parts_that_training_joined(merge_below):
    "after a training, every token falls into the two that were joined to make it"
    for alphabet in ("ab", "abc", "abcde"):
        merges, _ = _trained(_words(alphabet, 8).encode(), 40)
        vocab, ranks = _tokens(merges), _ranks(merges)
        for (a, b), rank in merges.items():
            if ranks[vocab[rank]] == rank:     # without a split two tokens can be the same bytes
                got, wanted = merge_below(ranks, vocab[rank], rank), [vocab[a], vocab[b]]
                assert got == wanted, f"{vocab[rank]} of rank {rank} is {_short(got)}, training joined {wanted}"


CASES = {
    "01.pair_counts": [counts_the_example, counts_overlapping_pairs, keeps_the_order_of_a_pair,
                       finds_nothing_in_less_than_two, counts_like_a_slow_search],
    "01.merge": [merges_the_example, does_not_overlap, keeps_what_it_does_not_merge, leaves_input_alone,
                 merges_like_str_replace],
    "01.encode": [encodes_the_example, encodes_bytes_not_characters, merges_earliest_first,
                  merges_earliest_first_wherever_it_is, goes_on_until_nothing_merges, repeats_training,
                  encodes_new_text],
    "01.decode": [joins_before_it_decodes, uses_the_vocabulary, never_raises_for_bytes, inverts_encoding],
    "01.split": [loses_nothing, keeps_words_whole, cuts_numbers_in_threes, keeps_punctuation_apart,
                 gives_the_last_blank_away, knows_every_script, cuts_like_a_scanner],
    "01.merge_below": [finds_the_parts_of_the_example, uses_lower_ranks_only, merges_the_lowest_rank_first,
                       takes_the_left_of_equals, finds_the_parts_that_training_joined],
}
