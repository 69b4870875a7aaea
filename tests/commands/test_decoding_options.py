"""Options of decoding on the command line: each has an effect, or is refused in one line before any work."""

import json
import sys

import numpy as np
import pytest
import soundfile
from helpers import sections

from asr import commands
from asr.config import Config
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer


@pytest.fixture
def transcribe(monkeypatch, capsys, tmp_path, tiny_model):
    """`asr transcribe` of a second of sound: exit status, stdout, stderr. WORDS is a file of hot words."""
    time = np.arange(16000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(500 * time * (1 + time)), 16000)
    (tmp_path / "words.txt").write_text("seven\n\nnine six\n", encoding="utf-8")

    def call(*arguments, model=tiny_model):
        words = [str(tmp_path / "words.txt") if a == "WORDS" else str(a) for a in arguments]
        line = ["asr", "transcribe", str(tmp_path / "a.wav"), "--model", str(model), *words]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as caught:
            commands.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


REFUSED = [
    ("--decoder beam --beam 0", "beam 0"),
    ("--beam 4", "beam: the decoder 'greedy' has no such option"),
    ("--n-best 2", "n_best"),
    ("--decoder beam --beam 3 --n-best 4 --output x", "more than the beam of 3"),
    ("--decoder beam --n-best 4", "--output"),
    ("--decoder beam --n-best 4 --output-dir x", "--format json"),
    ("--length-normalization 1", "length_normalization"),
    ("--decoder beam --length-normalization -1", "below 0"),
    ("--decoder beam --length-normalization nan", "not a finite number"),
    ("--hot-words WORDS", "hot_words: the decoder 'greedy'"),
    ("--decoder beam --hot-words missing.txt", "missing.txt: cannot read hot words"),
    ("--decoder beam --hot-word-bonus 2", "has no effect without"),
    ("--decoder beam --hot-words WORDS --hot-word-bonus -1", "below 0"),
    ("--decoder beam --language-model-weight 2", "has no effect without"),
    ("--decoder beam --language-model missing", "missing"),
    ("--language-model missing", "language_model: the decoder 'greedy'"),
    ("--decoder ctc --ctc-weight 0.5", "ctc_weight: the decoder 'ctc'"),
    ("--decoder rescoring --max-tokens 3", "max_tokens: the decoder 'rescoring'"),
    ("--best", "no best_decoding.json"),
    ("--best --decoder ctc", "omit --decoder"),
    ("--candidates 0", "candidates 0"),
    ("--decoder beam --no-draft", "draft: the decoder 'beam'"),
    ("--candidates 3 --ctc-weight 0", "only the decoder"),
    ("--max-tokens 0", "max_tokens 0"),
    ("--ctc-weight 1.5", "above 1"),
    ("--timestamps", "timestamps: this model has no tokens for times"),
    ("--initial-prompt x", "initial_prompt: this model has no token for earlier text"),
    ("--previous-text", "previous_text: this model has no token"),
    ("--decoder ctc --temperature 1", "temperature: the decoder 'ctc'"),
    ("--decoder beam --temperature 1", "temperature: the decoder 'beam'"),
    ("--temperature -1", "temperature -1.0: below 0"),
    ("--temperature 1 --fallback", "fallback always begins with temperature 0"),
    ("--seed 1", "no token is drawn at random"),
    ("--min-log-prob -2", "no effect without fallback"),
    ("--max-compression-ratio 2", "no effect without fallback"),
    ("--no-speech-threshold 0.5", "no token for silence"),
    ("--decoder beam --n-best 2 --timestamps --output x", "only one text"),
]


@pytest.mark.parametrize("arguments, complaint", REFUSED)
def test_refused(transcribe, arguments, complaint):
    status, out, err = transcribe(*arguments.split())
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("asr: error: ") and complaint in line


@pytest.mark.parametrize("text, complaint", [("sevän\n", "'ä'"), ("\n \n", "no hot words"), ("x" * 99, "60")])
def test_impossible_hot_words_are_refused(transcribe, tmp_path, text, complaint):
    (tmp_path / "odd.txt").write_text(text, encoding="utf-8")
    status, _, err = transcribe("--decoder", "beam", "--hot-words", tmp_path / "odd.txt")
    assert status == 1 and len(err.splitlines()) == 1 and complaint in err
    (tmp_path / "odd.txt").write_bytes(b"s\xe9ven")
    assert "UTF-8" in transcribe("--decoder", "beam", "--hot-words", tmp_path / "odd.txt")[2]


def test_a_model_without_ctc_refuses_what_needs_it(transcribe, tmp_path):
    small = sections(
        d_model=16, n_heads=2, d_ffn=16, encoder_layers=1, decoder_layers=1, conv_channels=2, ctc=False
    )
    config = Config.model_validate({"model": small, "train": {"ctc_weight": 0}})
    Bundle.build(config, CharacterTokenizer.from_characters(["seven ix"])).save(tmp_path / "model")
    for wrong in (["--draft"], ["--ctc-weight", "0.3"], ["--decoder", "ctc"], ["--decoder", "rescoring"]):
        status, _, err = transcribe(*wrong, model=tmp_path / "model")
        assert status == 1 and "no CTC head" in err and len(err.splitlines()) == 1
    for right in (["--no-draft"], ["--ctc-weight", "0"], ["--decoder", "beam", "--beam", "2"]):
        assert transcribe(*right, model=tmp_path / "model")[::2] == (0, "")


def test_a_model_without_decoder_decodes_with_ctc_and_refuses_the_others(transcribe, tmp_path):
    small = sections(d_model=16, n_heads=2, d_ffn=16, encoder_layers=1, conv_channels=2)
    config = Config.model_validate({"model": small | {"decoder": None}, "train": {"ctc_weight": 1.0}})
    tokenizer = CharacterTokenizer.from_characters("seven ix")
    Bundle.build(config, tokenizer).save(tmp_path / "model")
    for right in ([], ["--decoder", "ctc"], ["--beam", "3"]):
        assert transcribe(*right, model=tmp_path / "model")[::2] == (0, "")
    for wrong in ("greedy", "beam", "rescoring"):
        status, _, err = transcribe("--decoder", wrong, model=tmp_path / "model")
        assert status == 1 and len(err.splitlines()) == 1
        assert f"decoder {wrong}: this model has no decoder; use the decoder ctc" in err


def test_the_n_best_texts_are_written_as_json(transcribe, tmp_path):
    out = tmp_path / "out.jsonl"
    assert transcribe("--decoder", "beam", "--beam", 4, "--n-best", 3, "--output", out) == (0, "", "")
    (record,) = map(json.loads, out.read_text().splitlines())
    (segment,) = record["segments"]
    assert len(segment["alternatives"]) == 2 and segment["finish_reason"] in ("end", "length", "repetition")
    scores = [segment["score"], *(other["score"] for other in segment["alternatives"])]
    assert scores == sorted(scores, reverse=True)
    assert set(segment["alternatives"][0]) == {"text", "score", "confidence"}


def test_each_option_changes_something(transcribe, tmp_path):
    """It is not only accepted: a text or a score changes."""
    out = tmp_path / "out.jsonl"

    def result(arguments):
        assert transcribe(*arguments.split(), "--output", out, "--overwrite") == (0, "", "")
        (segment,) = json.loads(out.read_text())["segments"]
        return segment["text"], segment["score"], len(segment["alternatives"])

    plain = result("--decoder beam")
    for option in (
        "--beam 1", "--n-best 2", "--max-tokens 1", "--ctc-weight 0.9", "--length-normalization 1",
        "--hot-words WORDS --hot-word-bonus 9", "--candidates 1",
    ):  # fmt: skip
        assert result(f"--decoder beam {option}") != plain, option
    assert result("--decoder beam --hot-words WORDS --hot-word-bonus 0") == plain
