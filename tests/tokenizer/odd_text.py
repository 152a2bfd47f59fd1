"""Text for property tests: not random code points but the ones that broke tokenizers before."""

from hypothesis import strategies as st

SCRIPTS = (
    "It's 3.14159 o'clock; WE'LL see 12345 cats, don't we? \t tabs\r\n\r\n  indented\n"
    "안녕하세요! 한국어 문장입니다. 日本語の文章。 中文字符。"
    "Привет, мир! ١٢٣ अनुवाद ½ naïve café ﬁ e\u0301 😉👩‍🚀 \u00a0\u2003x\u200b "
)

WORDS = ["'s", "'LL", "'ſ", "'re", "'x", "''", "<|bos|>", "<|user_end|>", "return"]
WORDS += ["    ", "\r\n", "1234567", "....", "\n\n\n"]
CHARACTERS = (
    "aZſßǅé中한अ"  # letters
    "07½٣Ⅻ"  # numbers
    " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u3000"  # white space, and what only looks like it:
    "\u180e\u200b\u200d\ufeff\x00"
    "'._-!<|>«😉\u0301\u0900"
)

texts = st.lists(st.one_of(st.sampled_from(CHARACTERS), st.sampled_from(WORDS)), max_size=40).map("".join)
"""A mix of all that the split patterns treat differently."""

runs = st.lists(st.tuples(st.sampled_from("aab 1\n"), st.integers(1, 9)), max_size=30).map(
    lambda pieces: "".join(character * times for character, times in pieces)
)
"""Few letters in runs: overlapping pairs, and ties between counts."""
