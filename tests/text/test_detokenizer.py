"""The incremental detokenizer beside transformers' decode of all ids at once, and stop strings beside str.find."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models
from transformers.convert_slow_tokenizer import bytes_to_unicode

from vsrv.text.detokenizer import Detokenizer, TextOptions
from vsrv.text.tokenizer import Tokenizer

TEXTS = [
    "Hello, the quick brown fox.",
    "naïve café Ωμέγα, привет мир",
    "東京タワー, 日本語 한국어 हिन्दी",
    "🙂👩‍👩‍👧🇨🇭 e\u0301 \u00a0\u200b",
    "def f(x):\n\treturn  x\r\n\n    0123456789 \x00",
]
PHRASE = "aéEENDN日E"  # cut at every byte below


def pieces_of(
    tokenizer: Tokenizer, ids: Iterable[int], options: TextOptions | None = None
) -> tuple[list[str], str]:
    """One feed for each id → (what each gave, what finish gave)."""
    detokenizer = Detokenizer(tokenizer, options or TextOptions())
    fed = [detokenizer.feed([token])[0] for token in ids]
    return fed, detokenizer.finish()


def text_of(tokenizer: Tokenizer, ids: Iterable[int], options: TextOptions | None = None) -> str:
    fed, rest = pieces_of(tokenizer, ids, options)
    return "".join(fed) + rest


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level vocabulary of all substrings of PHRASE, so that every way to cut it is a sequence of ids."""
    letters = bytes_to_unicode()
    data = PHRASE.encode()
    cuts = itertools.combinations(range(len(data) + 1), 2)
    words = dict.fromkeys("".join(letters[value] for value in data[start:end]) for start, end in cuts)
    made = tokenizers.Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    folder = tmp_path_factory.mktemp("cutter")
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(Path(folder))


def every_cut(tokenizer: Tokenizer) -> Iterator[list[int]]:
    letters = bytes_to_unicode()
    data = PHRASE.encode()
    for inner in itertools.product((False, True), repeat=len(data) - 1):
        places = [0, *(index + 1 for index, cut in enumerate(inner) if cut), len(data)]
        words = [
            "".join(letters[value] for value in data[start:end]) for start, end in itertools.pairwise(places)
        ]
        ids = [tokenizer.token_to_id(word) for word in words]
        assert None not in ids
        yield [token for token in ids if token is not None]


# ---------------------------------------------------------------------------------------------- whole characters


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_concatenate_to_the_reference_decode(byte_level: Any, text: str) -> None:
    ids = byte_level.reference.encode(text, add_special_tokens=False)
    assert text_of(byte_level.own, ids) == byte_level.reference.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_pieces_concatenate_to_the_reference_decode(pieces: Any, text: str) -> None:
    prompt = pieces.reference.encode("the", add_special_tokens=False)
    ids = pieces.reference.encode("the" + text, add_special_tokens=False)
    assert ids[: len(prompt)] == prompt
    answer = ids[len(prompt) :]  # after a prompt, a first space belongs to the text
    assert text_of(pieces.own, answer) == pieces.reference.decode(ids).removeprefix("the") == text


def test_a_leading_space_of_an_answer_is_kept(pieces: Any) -> None:
    ids = pieces.reference.encode("京 the", add_special_tokens=False)
    assert text_of(pieces.own, [token for token in ids if token == pieces.own.token_to_id("▁the")]) == " the"


@pytest.mark.parametrize("text", TEXTS)
def test_every_step_gives_all_whole_characters_and_no_half_one(byte_level: Any, text: str) -> None:
    ids = byte_level.reference.encode(text, add_special_tokens=False)
    fed, rest = pieces_of(byte_level.own, ids)
    for count in range(1, len(ids) + 1):
        whole = byte_level.reference.decode(ids[:count]).rstrip("\ufffd")  # a half character at the end
        assert "".join(fed[:count]) == whole
    assert rest == ""


def test_half_a_character_at_the_end_becomes_one_replacement(byte_level: Any) -> None:
    letters = bytes_to_unicode()
    ids = [byte_level.own.token_to_id(letters[value]) for value in "🙂".encode()[:3]]
    assert pieces_of(byte_level.own, ids) == (["", "", ""], "\ufffd")
    assert byte_level.reference.decode(ids) == "\ufffd"
    assert pieces_of(byte_level.own, [*ids, byte_level.own.token_to_id("A")]) == (["", "", "", "\ufffdA"], "")


def test_random_ids_end_as_the_reference_decode(byte_level: Any) -> None:
    chance = random.Random(3)
    invalid = 0
    for _ in range(300):
        ids = [chance.randrange(byte_level.own.vocab_size) for _ in range(chance.randrange(1, 25))]
        want = byte_level.reference.decode(ids)
        invalid += "\ufffd" in want
        assert text_of(byte_level.own, ids, TextOptions(skip_special_tokens=False)) == want
        assert text_of(byte_level.own, ids) == byte_level.reference.decode(ids, skip_special_tokens=True)
    assert invalid > 100


def test_random_pieces_are_text_whatever_their_bytes(pieces: Any) -> None:
    chance = random.Random(4)
    for _ in range(300):
        ids = [chance.randrange(pieces.own.vocab_size + 5) for _ in range(chance.randrange(1, 25))]
        for options in (TextOptions(), TextOptions(stop=("\ufffd\ufffd", "the"), skip_special_tokens=False)):
            fed, rest = pieces_of(pieces.own, ids, options)
            ("".join(fed) + rest).encode()  # no surrogates
            visible = [t for t in ids if not options.skip_special_tokens or t not in pieces.own.special_ids]
            data = b"".join(pieces.own.token_bytes(token) for token in visible)
            assert data.decode(errors="replace").startswith("".join(fed) + rest)


def drawn_ids(tokenizer: Tokenizer, chance: random.Random, emoji: list[int]) -> list[int]:
    """Any ids, or ids with whole, cut and shuffled emoji among them."""
    ids = [chance.randrange(tokenizer.vocab_size) for _ in range(chance.randrange(1, 12))]
    for _ in range(chance.randrange(4)):
        at, start = chance.randrange(len(ids) + 1), chance.randrange(len(emoji))
        ids[at:at] = emoji[start : start + chance.randrange(1, 9)]
    return ids


def in_any_cut(tokenizer: Tokenizer, ids: list[int], options: TextOptions, chance: random.Random) -> str:
    """The stream's pieces when the engine gives one to four tokens at once."""
    detokenizer, sent, at = Detokenizer(tokenizer, options), "", 0
    while at < len(ids):
        size = chance.randrange(1, 5)
        sent += detokenizer.feed(ids[at : at + size])[0]
        at += size
    return sent + detokenizer.finish()


def test_ten_thousand_streams_are_the_whole_decode(byte_level: Any) -> None:
    chance = random.Random(11)
    emoji = byte_level.reference.encode("🙂👩‍👩‍👧🇨🇭 é日", add_special_tokens=False)
    whole = invalid = 0
    for _ in range(10_000):
        ids = drawn_ids(byte_level.own, chance, emoji)
        want = byte_level.own.decode(ids, True)  # the library's own decoder of all ids at once
        whole, invalid = whole + ("🙂" in want), invalid + ("\ufffd" in want)
        assert in_any_cut(byte_level.own, ids, TextOptions(), chance) == want
    assert whole > 300 and invalid > 3000


def test_ten_thousand_streams_of_pieces_and_bytes_are_the_text_of_their_bytes(pieces: Any) -> None:
    """The library's decoder makes one U+FFFD of every byte of a broken run; where no run is broken both are the same."""
    chance = random.Random(12)
    emoji = [pieces.own.token_to_id(f"<0x{value:02X}>") for value in "🙂👩‍👧é日".encode()]
    same = 0
    for _ in range(5_000):
        ids = drawn_ids(pieces.own, chance, emoji)
        got = in_any_cut(pieces.own, ids, TextOptions(), chance)
        shown = [token for token in ids if token not in pieces.own.special_ids]
        assert got == b"".join(map(pieces.own.token_bytes, shown)).decode(errors="replace")
        if "\ufffd" not in got:
            same += 1
            want = pieces.own.decode(ids, True)
            assert got == want or got == " " + want  # it takes the space of a beginning away
    assert same > 150


@pytest.mark.parametrize("seed", range(3))
def test_streams_with_stop_strings_are_the_whole_text_up_to_the_first(byte_level: Any, seed: int) -> None:
    chance = random.Random(seed)
    emoji = byte_level.reference.encode("🙂👩‍👩‍👧 aaabab", add_special_tokens=False)
    stopped = 0
    for _ in range(700):
        ids = drawn_ids(byte_level.own, chance, emoji)
        text = byte_level.own.decode(ids, True)
        stops = tuple(
            text[at : at + chance.randrange(1, 6)].replace("\ufffd", "") or "x"
            for at in (chance.randrange(len(text) + 1) for _ in range(3))
        )
        ends = sorted((text.find(stop) + len(stop), stops.index(stop)) for stop in stops if stop in text)
        options = TextOptions(stop=stops)
        if not ends:
            assert in_any_cut(byte_level.own, ids, options, chance) == text
            continue
        stopped += 1
        end, place = ends[0]
        assert in_any_cut(byte_level.own, ids, options, chance) == text[: end - len(stops[place])]
    assert stopped > 500


def test_one_feed_of_many_ids_is_many_feeds_of_one(byte_level: Any) -> None:
    ids = byte_level.reference.encode(" ".join(TEXTS), add_special_tokens=False)
    for size in (1, 2, 3, 7, len(ids)):
        detokenizer = Detokenizer(byte_level.own, TextOptions())
        fed = [detokenizer.feed(ids[start : start + size]) for start in range(0, len(ids), size)]
        assert "".join(text for text, _ in fed) == " ".join(TEXTS)
        assert sum(used for _, used in fed) == detokenizer.num_tokens == len(ids)


def test_words_keep_their_spaces_with_a_decoder_that_joins_them(tmp_path: Path) -> None:
    words = ["[UNK]", "play", "##ing", "the", "fox", ",", "."]
    made = tokenizers.Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[SEP]"])
    made.save(str(tmp_path / "tokenizer.json"))
    own = Tokenizer(tmp_path)
    ids = own.encode("playing the fox, the fox.", False).tolist()
    assert text_of(own, ids) == own.decode(ids) == "playing the fox, the fox."
    going_on = Detokenizer(own, TextOptions(), after=3)
    assert going_on.feed(ids[:2])[0] == " playing"
    assert Detokenizer(own, TextOptions(), after=own.special["[SEP]"]).feed([3])[0] == "the"


# ---------------------------------------------------------------------------------------------- control tokens


def test_skip_special_tokens_both_ways(byte_level: Any) -> None:
    ids = byte_level.reference.encode("日<|im_end|>本<think>x<|endoftext|>", add_special_tokens=False)
    assert text_of(byte_level.own, ids) == "日本<think>x"
    assert byte_level.reference.decode(ids, skip_special_tokens=True) == "日本<think>x"
    shown = TextOptions(skip_special_tokens=False)
    assert text_of(byte_level.own, ids, shown) == byte_level.reference.decode(ids)
    assert text_of(byte_level.own, ids, shown) == "日<|im_end|>本<think>x<|endoftext|>"


def test_a_control_token_inside_a_character_or_a_stop_string_does_not_break_it(cutter: Tokenizer) -> None:
    end = cutter.special["<|end|>"]
    for ids in every_cut(cutter):
        broken = [token for pair in zip(ids, itertools.repeat(end), strict=False) for token in pair]
        assert text_of(cutter, broken) == PHRASE
        assert text_of(cutter, broken, TextOptions(stop=("END",))) == "aéE"


def test_a_shown_control_token_can_be_a_stop_string(cutter: Tokenizer) -> None:
    ids = [cutter.token_to_id("a"), cutter.special["<|end|>"], cutter.token_to_id("E")]
    assert text_of(cutter, ids, TextOptions(stop=("|end|",), skip_special_tokens=False)) == "a<"
    assert text_of(cutter, ids, TextOptions(stop=("|end|",))) == "aE"


# ---------------------------------------------------------------------------------------------- stop strings


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(
    "stop", ["END", "E", "EE", "éE", "N日", "日", "D", "EENDN日E", PHRASE, "ENDX", "N日EX"]
)
def test_a_stop_string_is_found_at_every_cut(cutter: Tokenizer, stop: str, include: bool) -> None:
    at = PHRASE.find(stop)
    want = PHRASE if at < 0 else PHRASE[: at + len(stop) if include else at]
    for ids in every_cut(cutter):
        detokenizer = Detokenizer(cutter, TextOptions(stop=(stop,), include_stop=include))
        fed = [detokenizer.feed([token]) for token in ids]
        assert "".join(text for text, _ in fed) + detokenizer.finish() == want
        assert detokenizer.stopped == (stop if at >= 0 else None)


def test_text_is_held_back_only_while_it_can_become_a_stop_string(cutter: Tokenizer) -> None:
    stops = ("ENDX", "éEEX", "NDN日X", "X")
    for ids in every_cut(cutter):
        detokenizer = Detokenizer(cutter, TextOptions(stop=stops))
        data, sent = b"", ""
        for token in ids:
            data += cutter.token_bytes(token)
            sent += detokenizer.feed([token])[0]
            seen = data.decode(errors="ignore")  # whole characters so far
            assert seen.startswith(sent)
            beginnings = [
                size for stop in stops for size in range(1, len(stop)) if seen.endswith(stop[:size])
            ]
            assert len(seen) - len(sent) == max(beginnings, default=0)
        assert sent + detokenizer.finish() == PHRASE


def test_the_match_that_ends_first_wins(cutter: Tokenizer) -> None:
    for ids in every_cut(cutter):
        for stops in (("ENDN日", "END"), ("END", "ENDN日"), ("日", "END")):
            detokenizer = Detokenizer(cutter, TextOptions(stop=stops))
            assert detokenizer.feed(ids)[0] + detokenizer.finish() == "aéE"
            assert detokenizer.stopped == "END"
        same_end = Detokenizer(cutter, TextOptions(stop=("ND", "END")))
        assert same_end.feed(ids)[0] == "aéEE"
        assert same_end.stopped == "ND"


def test_ids_behind_a_stop_string_are_not_used(cutter: Tokenizer) -> None:
    letters = [
        cutter.token_to_id(character)
        for character in (*"a", *map(bytes_to_unicode().get, "é".encode()), *"EENDND")
    ]
    detokenizer = Detokenizer(cutter, TextOptions(stop=("END",)))
    assert detokenizer.feed(letters) == ("aéE", 7)
    assert detokenizer.num_tokens == 7
    assert detokenizer.feed(letters) == ("", 0)  # the engine may be a step ahead
    assert detokenizer.finish() == ""


def test_half_a_character_behind_a_stop_string_is_dropped(cutter: Tokenizer) -> None:
    half = cutter.token_to_id("ND" + "N" + bytes_to_unicode()["日".encode()[0]])
    detokenizer = Detokenizer(cutter, TextOptions(stop=("D",), include_stop=True))
    assert (detokenizer.feed([half])[0], detokenizer.finish()) == ("ND", "")


def test_stop_strings_count_only_behind_min_tokens(cutter: Tokenizer) -> None:
    end, e, n, d = (cutter.token_to_id(word) for word in ("END", "E", "N", "D"))
    exempt = Detokenizer(cutter, TextOptions(stop=("END",), min_tokens=2))
    assert [exempt.feed([token])[0] for token in (end, end, e, n)] == ["END", "END", "", ""]
    assert exempt.feed([d]) == ("", 1)
    assert exempt.stopped == "END"
    across = Detokenizer(cutter, TextOptions(stop=("END",), min_tokens=2))
    assert [across.feed([token])[0] for token in (e, n)] == ["E", "N"]  # cannot become a stop string
    assert [across.feed([token])[0] for token in (d, end)] == ["D", ""]
    assert across.stopped == "END"


def test_stop_strings_in_sentencepiece_text(pieces: Any) -> None:
    ids = pieces.reference.encode("the fox\n日本語 the", add_special_tokens=False)
    for stop, want in (("\n日", " the fox"), ("本", " the fox\n日"), ("語 the ", " the fox\n日本語 the")):
        assert text_of(pieces.own, ids, TextOptions(stop=(stop,))) == want
    assert text_of(pieces.own, ids, TextOptions(stop=("日本",), include_stop=True)) == " the fox\n日本"


def test_random_text_and_random_stops_against_str_find(byte_level: Any) -> None:
    chance = random.Random(5)
    found = 0
    for _ in range(200):
        ids = [chance.randrange(byte_level.own.vocab_size) for _ in range(30)]
        whole = byte_level.reference.decode(ids, skip_special_tokens=True)
        at, size = chance.randrange(len(whole)), chance.randrange(1, 5)
        stop = whole[at : at + size] if chance.random() < 0.7 else "zq"
        if "\ufffd" in stop:
            continue
        first = whole.find(stop)
        found += first >= 0
        assert text_of(byte_level.own, ids, TextOptions(stop=(stop,))) == (
            whole[:first] if first >= 0 else whole
        )
        if first >= 0:
            with_stop = text_of(byte_level.own, ids, TextOptions(stop=(stop,), include_stop=True))
            assert with_stop == whole[: first + len(stop)]
    assert found > 30
