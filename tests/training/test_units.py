"""Models of learned units: training, resuming, and every decoder with language models and hot words."""

from pathlib import Path

import pytest
import torch
from helpers import sections

from asr.config import Config, LanguageConfig
from asr.datasets.check import check_data, model_limits
from asr.decoding import DecodingOptions, build_decoder
from asr.decoding.ngram import estimate_ngram
from asr.model_folder import load_model
from asr.tokenizers import load_tokenizer
from asr.training.loop import train

pytest.importorskip("tokenizers.models")
from asr.tokenizers.unigram import Unigram

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "digits" / "manifest.jsonl"


def settings(kind="byte_level_bpe", **train_settings):
    return Config.model_validate(
        {
            "tokenizer": {"kind": kind, "size": 290},
            "model": sections(d_model=16, n_heads=2, d_ffn=32),
            "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 4, "max_batch": 4},
            "train": {"steps": 1, "validate_every": 1, "average": 1, "precision": "float32"} | train_settings,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("units") / "run"
    assert train(settings(), run, device="cpu") == 0
    return run


@pytest.fixture(scope="module")
def bundle(run):
    """The model, with outputs of many different units."""
    bundle = load_model(run, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in bundle.network.named_parameters():
            if name in bundle.network.BY_TOKEN:
                weight.normal_(0, 1.5)
    return bundle


@pytest.fixture(scope="module")
def language_model(run, tmp_path_factory):
    """A neural language model of the recognizer's units."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text").write_text("nine eight seven six\nfour three two\nsix six\n" * 4)
    values = {
        "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ffn": 32},
        "data": {"text": [folder / "text"], "hold_out": 2, "characters_of": run},
        "train": {"steps": 1, "validate_every": 1, "precision": "float32"},
    }
    assert train(LanguageConfig.model_validate(values), folder / "run", device="cpu") == 0
    return folder / "run"


def test_the_units_are_stored_with_the_model_and_kept_when_it_is_resumed(tmp_path, monkeypatch):
    calls = []
    original = Unigram.train
    monkeypatch.setattr(Unigram, "train", classmethod(lambda cls, *a: calls.append(a) or original(*a)))
    run = tmp_path / "run"
    assert train(settings("unigram"), run, device="cpu") == 0
    before = load_tokenizer(run / "tokenizer.json")
    assert train(settings("unigram", steps=2), run, resume="always", device="cpu") == 0
    assert len(calls) == 1 and load_tokenizer(run / "tokenizer.json") == before
    assert before.kind == "unigram" and len(before) <= 290


def decoded(bundle, waveforms, options):
    lengths = torch.tensor([len(w) for w in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    memory = bundle.network.encode(*bundle.features(padded, lengths))
    return [best.tokens for best, *_ in build_decoder(bundle, options)(memory)]


@pytest.mark.parametrize(
    "options",
    [
        dict(decoder="greedy", max_tokens=12),
        dict(decoder="greedy", max_tokens=12, draft=False),
        dict(decoder="ctc", beam=3, hot_words=("seven", "größe"), hot_word_bonus=2.0),
        dict(decoder="ctc", beam=3, language_model="words"),
        dict(decoder="beam", max_tokens=12, beam=3, language_model="words", hot_words=("seven six",)),
        dict(decoder="beam", max_tokens=12, beam=3, language_model="neural", language_model_weight=0.5),
        dict(decoder="rescoring", beam=3, language_model="neural", language_model_weight=0.5),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@torch.inference_mode()
def test_a_batch_gives_what_each_utterance_gives_alone(bundle, language_model, tmp_path, options):
    if options.get("language_model") == "words":
        estimate_ngram(["seven six", "nine eight seven"] * 4, 2, 9, (1, 1)).save(tmp_path / "words")
        options = options | {"language_model": str(tmp_path / "words")}
    elif options.get("language_model"):
        options = options | {"language_model": str(language_model)}
    options = DecodingOptions(**options)
    torch.manual_seed(1)
    waveforms = [torch.randn(n) for n in (9000, 16000, 12345)]
    together = decoded(bundle, waveforms, options)
    assert together == [decoded(bundle, [each], options)[0] for each in waveforms]
    assert any(together)
    if options.decoder == "greedy":
        assert together == decoded(
            bundle, waveforms, DecodingOptions(decoder="greedy", draft=True, max_tokens=12)
        )


def test_the_data_check_counts_units(run, tmp_path):
    problems = check_data([SAMPLES], model_limits(run), recordings=False).problems
    assert not problems.keys() & {"character that the model lacks", "text longer than CTC allows"}
