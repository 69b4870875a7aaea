"""Sentences without audio: the file, and the probabilities of phonemes that are simulated for a sentence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.datasets.settings import TextInjectionConfig
from asr.datasets.text_injection import FRAME_MULTIPLE, InjectedTexts
from asr.errors import AsrError
from asr.tokenizers.characters import CharacterTokenizer

SYMBOLS = "kætdɔɡ"
TOKENIZER = CharacterTokenizer.from_characters(" acdgot")
SENTENCES = [("cat", "kæt"), ("a dog", "ɔ dɔɡ"), ("dog cat", "dɔɡ kæt"), ("cat cat cat", "kæt kæt kæt")]


def write(path: Path, sentences: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"text": text, "phonemes": phonemes}) for text, phonemes in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def texts(path: Path, count: int = 2, **options: int) -> InjectedTexts:
    return InjectedTexts(TextInjectionConfig(file=path, sentences=count), SYMBOLS, TOKENIZER, **options)


def greedy(probabilities: torch.Tensor) -> str:
    """The phonemes with probabilities (S, P) above 0.3, consecutive equal ones merged as CTC does."""
    best, ids = probabilities[:, 1:].max(1)
    ids = torch.where(best > 0.3, ids + 1, 0)
    return "".join(SYMBOLS[id - 1] for id in torch.unique_consecutive(ids).tolist() if id)


def test_a_batch_has_neighbors_in_length_and_their_texts(tmp_path: Path) -> None:
    injected = texts(write(tmp_path / "a.jsonl", SENTENCES[::-1]))
    found = set()
    for number in range(20):
        batch = injected.batch((0, 0, number))
        assert batch.tokens.shape[0] == 2 and batch.probabilities.size(1) % FRAME_MULTIPLE == 0
        pair = [
            TOKENIZER.decode(row[:n].tolist())
            for row, n in zip(batch.tokens, batch.token_lengths, strict=True)
        ]
        found.add(tuple(pair))
    assert found == {("cat", "a dog"), ("a dog", "dog cat"), ("dog cat", "cat cat cat")}


def test_a_batch_depends_on_its_key_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", SENTENCES)
    first, second, other = (
        texts(path).batch((1, 2, 3)),
        texts(path).batch((1, 2, 3)),
        texts(path).batch((1, 2, 4)),
    )
    assert torch.equal(first.probabilities, second.probabilities) and torch.equal(first.tokens, second.tokens)
    assert not torch.equal(first.probabilities, other.probabilities)


@given(
    st.lists(st.tuples(st.integers(1, len(SYMBOLS) - 1), st.booleans()), min_size=1, max_size=30),
    st.integers(0, 2**31),
)
def test_a_sentence_has_a_peak_for_each_phoneme_in_order(steps: list[tuple[int, bool]], seed: int) -> None:
    """No two equal neighbors: CTC would merge them where no blank is between them."""
    spoken, position = "", 0
    for step, gap in steps:
        position = (position + step) % len(SYMBOLS)
        spoken += SYMBOLS[position] + " " * gap
    with tempfile.TemporaryDirectory() as folder:
        injected = texts(write(Path(folder) / "a.jsonl", [("cat", spoken)]), count=1)
    batch = injected.batch((seed, 0, 0))
    length = int(batch.lengths[0])
    probabilities = batch.probabilities[0, :length]
    assert greedy(probabilities) == spoken.replace(" ", "")
    torch.testing.assert_close(probabilities.sum(1), torch.ones(length))
    assert probabilities.min() >= 0 and not batch.probabilities[0, length:].any()


def test_slow_and_fast_sentences_and_pauses_differ(tmp_path: Path) -> None:
    injected = texts(write(tmp_path / "a.jsonl", [("cat", "kæt" * 20), ("cat", "kæt " * 20)]), count=2)
    plain, paused = zip(*(injected.batch((0, 0, n)).lengths.tolist() for n in range(200)), strict=True)
    assert max(plain) > 2 * min(plain)  # 1.6 to 4.5 frames for each phoneme
    assert sum(paused) / sum(plain) == pytest.approx(1 + 20 * 0.25 * 5 / (60 * 3.05), abs=0.04)


def test_some_phonemes_have_two_frames_and_none_has_three(tmp_path: Path) -> None:
    injected = texts(write(tmp_path / "a.jsonl", [("cat", "kæt" * 100)]), count=1)
    ids = torch.cat([injected.batch((0, 0, n)).probabilities[0, :, 1:].argmax(1) + 1 for n in range(10)])
    peaks = torch.cat([injected.batch((0, 0, n)).probabilities[0, :, 1:].amax(1) > 0 for n in range(10)])
    values, lengths = torch.unique_consecutive(ids * peaks, return_counts=True)
    runs = lengths[values > 0]
    assert len(runs) == 3000 and runs.max() == 2
    assert 0.05 < (runs == 2).float().mean() < 0.18  # the last frame of a phoneme has no second one


def test_frames_and_tokens_are_padded_to_multiples(tmp_path: Path) -> None:
    injected = texts(write(tmp_path / "a.jsonl", SENTENCES), token_multiple=16)
    assert injected.batch((0, 0, 0)).tokens.shape == (2, 16)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: expected a JSON object"),
        ('{"text": "cat"}', "line 2: expected a JSON object"),
        ('{"text": "cat", "phonemes": 3}', "line 2: expected a JSON object"),
        ("[1]", "line 2: expected a JSON object"),
        ('{"text": "cow", "phonemes": "k"}', "line 2: the tokenizer does not have"),
        ('{"text": "cat cat cat", "phonemes": "k"}', "line 2: 11 tokens, but the decoder has only 8"),
        ("", "1 sentences, but train.text_injection.sentences is 2"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", SENTENCES[:1])
    path.write_text(path.read_text() + "\n" + line, encoding="utf-8")
    with pytest.raises(AsrError, match=message) as error:
        texts(path, max_tokens=8)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AsrError, match=r"none\.jsonl"):
        texts(tmp_path / "none.jsonl")


def test_the_fingerprint_knows_the_content(tmp_path: Path) -> None:
    first = texts(write(tmp_path / "a.jsonl", SENTENCES)).fingerprint
    assert first == texts(write(tmp_path / "b.jsonl", SENTENCES)).fingerprint
    assert first != texts(write(tmp_path / "c.jsonl", [*SENTENCES[:3], ("cat", "kæd")])).fingerprint
