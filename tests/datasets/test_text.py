"""Text in blocks: every sentence once in an epoch, in an order that is a function of the seed."""

import gzip
import io
import itertools
import lzma
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.datasets import text as module
from asr.datasets.settings import TextConfig
from asr.datasets.text import Text, TextFile, padded
from asr.errors import AsrError
from asr.tokenizers import CharacterTokenizer, SpecialTokens

LINES = [f"{word} number {i}" for i, word in enumerate(["one", "two", "three", "äöü", "机器", "six"] * 20)]


@pytest.fixture
def small_blocks(monkeypatch):
    """So that a short text has many blocks and pools."""
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(module, "POOL", 5)


def config(**settings):
    return TextConfig.model_validate({"batch_characters": 100, "max_characters": 40} | settings)


def from_bytes(*contents, **settings):
    """A text of files with the given contents."""
    sources = [TextFile(Path(f"{i}.txt"), io.BytesIO(data), 0, len(data)) for i, data in enumerate(contents)]
    return Text(sources, config(**settings))


def from_lines(lines=LINES, **settings):
    return from_bytes("\n".join(lines).encode() + b"\n", **settings)


def learn(text):
    return CharacterTokenizer.from_characters(text.characters())


def sentences(tokenizer, batches):
    """The texts in some batches."""
    return [tokenizer.decode(row.tolist()) for batch in batches for row in batch.tokens]


def an_epoch(text, tokenizer, seed=0, epoch=0):
    """All batches of an epoch."""
    pools = [text.pool(tokenizer, seed, epoch, number) for number in range(text.pools)]
    return [batch for pool in pools for batch in pool.batches(range(len(pool)))]


def in_order(text, tokenizer):
    return [batch for pool in text.in_order(tokenizer) for batch in pool.batches(range(len(pool)))]


# ---------------------------------------------------------------------------------------- lines and blocks


@given(
    contents=st.lists(st.text("ab \r\n\t字", max_size=60), min_size=1, max_size=3),
    block=st.integers(1, 30),
)
def test_blocks_of_any_size_hold_every_line_once(contents, block):
    expected = [
        " ".join(line.split()) for content in contents for line in content.split("\n") if line.split()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        text = from_bytes(*(content.encode() for content in contents))
        assert list(text.sentences()) == expected


@given(lines=st.lists(st.text("ab ", max_size=5), min_size=2, max_size=12), data=st.data())
def test_the_last_lines_are_held_out(lines, data):
    count = data.draw(st.integers(1, len(lines) - 1))
    end = data.draw(st.sampled_from(["", "\n"])) if lines[-1] else "\n"
    whole = ("\n".join(lines) + end).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", data.draw(st.integers(1, 9)))
        train, dev = TextFile(Path("a"), io.BytesIO(whole), 0, len(whole)).split(count)
        assert (train.start, train.end, dev.end) == (0, dev.start, len(whole))
        assert whole[: train.end].decode() == "".join(line + "\n" for line in lines[:-count])
        together = [*Text([train], config()).sentences(), *Text([dev], config()).sentences()]
    assert together == [" ".join(line.split()) for line in lines if line.split()]


def test_holding_out_all_lines_is_refused():
    source = from_lines(["a", "b", "c"]).files[0]
    with pytest.raises(AsrError, match=r"0\.txt: the file has 3 lines, and hold_out 3 leaves no line"):
        source.split(3)


def test_an_endless_line_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 200)
    monkeypatch.setattr(module, "BLOCK", 64)
    data = b"first\n" + "字".encode() * 10_000 + b"\nlast\n"
    read = []

    class Counting(io.BytesIO):
        def readline(self, size=-1):
            line = super().readline(size)
            read.append(len(line))
            return line

    text = Text([TextFile(Path("a"), Counting(data), 0, len(data))], config())
    found = list(text.sentences())
    assert found[0] == "first" and found[-1] == "last" and max(read) <= 200
    assert text.survey(CharacterTokenizer.from_characters(["firstla"])).too_long == 1


def test_a_byte_order_mark_is_not_a_character():
    assert list(from_bytes("\ufeffone\r\ntwo\r\n".encode()).sentences()) == ["one", "two"]


@pytest.mark.parametrize(("case", "found"), [("as_is", "Straße"), ("upper", "STRASSE"), ("lower", "straße")])
def test_case(case, found):
    assert list(from_lines(["Straße"], case=case).sentences()) == [found]


# ------------------------------------------------------------------------------------------------- batches


def test_an_epoch_has_every_sentence_once_in_full_batches(small_blocks):
    text = from_lines()
    tokenizer = learn(text)
    for epoch in range(2):
        batches = an_epoch(text, tokenizer, epoch=epoch)
        assert sorted(sentences(tokenizer, batches)) == sorted(LINES)
        assert all(batch.tokens[:, 1:].numel() <= 100 for batch in batches)
        assert sum(batch.n_targets for batch in batches) == sum(len(s) + 1 for s in LINES)
        assert all(batch.n_targets == (batch.lengths - 1).sum() for batch in batches)
    padding = sum((b.tokens == tokenizer.special.pad).sum() for b in batches)
    assert padding < 0.25 * sum(b.tokens[:, 1:].numel() for b in batches)


def test_the_order_is_a_function_of_seed_and_epoch(small_blocks):
    text = from_lines()
    tokenizer = learn(text)

    def order(seed, epoch):
        return sentences(tokenizer, an_epoch(text, tokenizer, seed, epoch))

    orders = [order(0, 0), order(0, 1), order(1, 0), list(text.sentences())]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    assert order(0, 1) == orders[1]


def test_a_pool_is_the_same_whenever_and_from_whichever_batch_it_is_read(small_blocks):
    text = from_lines()
    tokenizer = learn(text)
    assert text.pools > 3
    for number in range(text.pools):
        whole = list(text.pool(tokenizer, 7, 1, number).batches(range(3)))
        again = text.pool(tokenizer, 7, 1, number)
        for place in range(3):
            (batch,) = again.batches([place])
            assert batch.place == place and torch.equal(batch.tokens, whole[place].tokens)


def test_no_more_than_a_pool_is_read_at_a_time(small_blocks):
    """A pool is five blocks of 64 bytes, and the ends of the lines that begin in them."""
    data = "\n".join(LINES).encode()
    read = []

    class Counting(io.BytesIO):
        def readline(self, size=-1):
            line = super().readline(size)
            read.append(len(line))
            return line

    text = Text([TextFile(Path("a"), Counting(data), 0, len(data))], config())
    text.pool(CharacterTokenizer.from_characters(LINES), 0, 0, 0)
    assert sum(read) < 5 * (64 + 40) < len(data) / 2


def test_in_order_is_the_same_every_time(small_blocks):
    text = from_lines()
    tokenizer = learn(text)
    first, second = (in_order(text, tokenizer) for _ in range(2))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))
    assert sorted(sentences(tokenizer, first)) == sorted(LINES)


def test_excluded_sentences_are_counted():
    text = from_lines(["", "good", "b" * 41, "née", " ", "goo d"])
    found = text.survey(CharacterTokenizer.from_characters(["good ne"]))
    assert (found.sentences, found.characters, found.too_long, found.unknown) == (2, 9, 1, 1)
    assert "1 with unknown characters, such as 'é'" in str(found) and "1 longer than" in str(found)
    tokenizer = CharacterTokenizer.from_characters(["good ne"])
    assert sorted(sentences(tokenizer, in_order(text, tokenizer))) == ["goo d", "good"]
    assert text.characters() == set(" degnoé")  # no b, of the sentence left out


def test_padding():
    special = SpecialTokens((1, 9), eos=2, pad=3, blank=0, suppressed=(), vocabulary_size=10)
    assert padded([[5, 6], [], [7]], special).tolist() == [[1, 9, 5, 6, 2], [1, 9, 2, 3, 3], [1, 9, 7, 2, 3]]


# --------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "txt.xz"])
def test_packed_files_are_read_as_plain_ones(tmp_path, suffix):
    path, data = tmp_path / f"some.{suffix}", "\n".join(LINES).encode()
    path.write_bytes({"txt": bytes, "txt.gz": gzip.compress, "txt.xz": lzma.compress}[suffix](data))
    before = sorted(tmp_path.iterdir())
    source = TextFile.open(path, tmp_path / "run")
    assert list(Text([source], config()).sentences()) == LINES
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == before  # unpacked, but into no named file


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("none.txt", None, "No such file"),
        ("plain.gz", b"plain", "[Nn]ot a gzipped"),
        ("plain.xz", b"plain", "not supported"),
        ("short.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], "ended before"),
        ("short.xz", lzma.compress(b"some text" * 99)[:-9], "ended before"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data, reason):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(AsrError, match=rf"{name}: cannot be read as text \(.*{reason}.*\)") as caught:
        TextFile.open(tmp_path / name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(AsrError, match="cannot be read as text"):
        TextFile.open(tmp_path, tmp_path)


def test_invalid_utf_8_is_named_with_its_position():
    with pytest.raises(AsrError, match=r"0\.txt: byte 8 is not UTF-8"):
        list(from_bytes("right\nna\xefve\n".encode("latin-1")).sentences())
