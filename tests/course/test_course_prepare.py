"""Text and tokenizer of a scale."""

from nanochat.course import load
from nanochat.course.prepare import first_characters, text, train_tokenizer
from nanochat.runtime import open_run


def test_the_first_characters_end_inside_a_document():
    assert list(first_characters(iter(["abc", "defg", "never"]), 5)) == ["abc", "de"]


def test_a_scales_tokenizer_is_trained_once_and_then_loaded(tmp_path, monkeypatch):
    scale = load().scale("smoke")
    run = open_run(tmp_path / "run", scale="smoke", seed=0, create=True)
    first = train_tokenizer(scale, run)
    assert first.vocab_size == scale.tokenizer.vocab_size
    assert text(scale, run)[-1].exists()
    before = (run / "tokenizer" / "model.json").stat().st_mtime_ns
    assert train_tokenizer(scale, run).digest == first.digest
    assert (run / "tokenizer" / "model.json").stat().st_mtime_ns == before
