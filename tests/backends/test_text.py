"""Tokens become text without torn characters, and stop strings are found across pieces."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from backends.text import Detokenizer, StopStrings
from tests.core.properties import cuts, quick

CORPUS = [
    "The quick brown fox jumps over the lazy dog. ",
    "Größe, café, naïve; 日本語 and 🐦🐦 👩‍👩‍👧 ",
    "  spaces   and\nlines\n\n",
] * 3


@lru_cache
def tokenizer(kind: str) -> Tokenizer:
    """A small BPE tokenizer: over bytes, or over words that begin with a visible space."""
    made = Tokenizer(models.BPE(byte_fallback=kind == "spaces", unk_token=None))
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet, special, limit = pre_tokenizers.ByteLevel.alphabet(), [], 1000
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
        alphabet, special, limit = [], [f"<0x{byte:02X}>" for byte in range(256)], 20
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=special, show_progress=False, limit_alphabet=limit
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def detokenized(kind: str, tokens: list[int]) -> list[str]:
    """The pieces of text that the tokens make, the end of it last."""
    backend = tokenizer(kind)
    detokenizer = Detokenizer(lambda window: backend.decode(list(window), skip_special_tokens=False))
    return [*map(detokenizer.feed, tokens), detokenizer.end()]


texts = st.text(max_size=40) | st.lists(
    st.sampled_from(["the", " fox", "🐦", "é", "日本", "  ", "\n", "👩‍👩‍👧", "\ufffd"]), max_size=10
).map("".join)


@quick
@given(texts)
@example("🐦🐦 👩‍👩‍👧 日本語")
@example(" leading and trailing ")
@example("\ufffd torn \ufffd\ufffd")
def test_bytes(text: str) -> None:
    """The pieces add up to the text, and no piece tears a character."""
    tokens = tokenizer("bytes").encode(text).ids
    pieces = detokenized("bytes", tokens)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@quick
@given(st.lists(st.integers(0, 255), max_size=30))
def test_any_tokens(tokens: list[int]) -> None:
    """Tokens that make no valid text still add up to what decoding all of them gives."""
    assert "".join(detokenized("bytes", tokens)) == tokenizer("bytes").decode(tokens, skip_special_tokens=False)


@quick
@given(st.lists(st.sampled_from(["the", "fox", "dog.", "jumps", "over 🐦", "日本語", "café"]), min_size=1, max_size=8))
def test_spaces(words: list[str]) -> None:
    """A tokenizer that drops the space before the first word loses no other space."""
    text = " ".join(words)
    tokens = tokenizer("spaces").encode(text).ids
    assert "".join(detokenized("spaces", tokens)) == tokenizer("spaces").decode(tokens, skip_special_tokens=False)


def test_text_comes_with_its_token() -> None:
    """Text goes out with the token that completes it, not later."""
    tokens = tokenizer("bytes").encode("The fox 🐦").ids
    pieces = detokenized("bytes", tokens)
    assert pieces[0]
    assert pieces[-1] == ""
    assert "".join(pieces[:-1]) == "The fox 🐦"


def stopped(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    """The text up to a stop string, and whether there was one."""
    strings = StopStrings(stops)
    out = "".join(map(strings.feed, pieces))
    return out + strings.end(), strings.stopped


@quick
@given(
    st.data(),
    st.text(st.sampled_from("abc \n"), max_size=20),
    st.lists(st.text(st.sampled_from("abc \n"), min_size=1, max_size=4), max_size=3),
)
@example(None, "aab", ["ab"])
@example(None, "ababac", ["abac"])
def test_stop_strings(data: st.DataObject | None, text: str, stops: list[str]) -> None:
    """In any chunking the text ends before the first stop string (of stop strings that are not part of each other)."""
    stops = [stop for stop in stops if not any(other != stop and other in stop for other in stops)]
    places = [place for place in map(text.find, stops) if place >= 0]
    pieces = data.draw(cuts(text)) if data else list(text)
    assert stopped(stops, pieces) == (text[: min(places)] if places else text, bool(places))


def test_only_the_beginning_of_a_stop_string_is_held() -> None:
    """What may become a stop string waits, all else goes out; after the stop nothing does."""
    strings = StopStrings(["END", "\n\n"])
    assert [strings.feed(piece) for piece in ("abcE", "N", "x", "\n", "a", "\n", "\n", "more")] == [
        "abc", "", "ENx", "", "\na", "", "", ""
    ]  # fmt: skip
    assert strings.stopped
    assert strings.end() == ""


def test_stop_strings_inside_each_other() -> None:
    """A stop string inside another one stops at the same place in any chunking."""
    assert stopped(["abc", "b"], ["abc"]) == stopped(["abc", "b"], ["a", "b", "c"])
