"""Errors of the CTC heads of a model inside the encoder and at its end."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr import DecodingOptions, Recognizer
from asr.datasets.manifest import read_manifest, write_manifest
from asr.errors import AsrError
from asr.model_folder import load_model
from asr.scoring import score

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes" / "english"))
import phoneme_errors

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


def test_repetitions_are_merged_before_blanks_are_removed():
    assert phoneme_errors.collapse(torch.tensor([0, 3, 3, 0, 3, 2, 2, 0]), 0) == [3, 3, 2]


def test_the_errors_of_both_heads_are_printed(tmp_path, monkeypatch, capsys):
    utterances = read_manifest(SAMPLES / "manifest.jsonl")[:3]
    found = {
        utterance.id: (phonemes, text)
        for utterance, phonemes, text in phoneme_errors.decode_heads(load_model("english", "cpu"), utterances)
    }
    recognizer = Recognizer("english", options=DecodingOptions(decoder="ctc"), voice_activity=False)
    for utterance in utterances:
        assert found[utterance.id][1] == recognizer.transcribe(utterance.audio).text

    rows = [replace(utterance, phonemes=found[utterance.id][0]) for utterance in utterances]
    rows[0] = replace(rows[0], phonemes=None)
    rows[1] = replace(rows[1], phonemes=(rows[1].phonemes or "") + "x")
    write_manifest(tmp_path / "a.jsonl", rows)
    monkeypatch.setattr(sys, "argv", ["phoneme_errors.py", "english", str(tmp_path / "a.jsonl")])
    phoneme_errors.main()
    counted = score({u.id: u.text for u in rows}, {id: text for id, (_, text) in found.items()})
    phonemes = sum(len(each.phonemes or "") for each in rows)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'a.jsonl'}: 3 utterances, phoneme errors {1 / phonemes:.1%}, "
        f"CTC head: CER {counted.cer:.1%}, WER {counted.wer:.1%}\n"
    )


def test_a_model_without_a_phoneme_head_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["phoneme_errors.py", str(tiny_model), "a.jsonl"])
    with pytest.raises(AsrError, match="no phoneme head"):
        phoneme_errors.main()
