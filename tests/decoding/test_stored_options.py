"""The default options and the most accurate ones come from the model folder; given options replace them."""

import json
import shutil
import sys

import numpy as np
import pytest
import soundfile

from asr import Recognizer, commands
from asr.decoding import DecodingOptions
from asr.decoding.stored_options import BEST_DECODING, DEFAULT_DECODING, best_options, default_options
from asr.errors import AsrError
from asr.model_folder import SHIPPED, load_model


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A model folder whose best options are a beam of 4 with a language model."""
    shutil.copytree(tiny_model, tmp_path / "model")
    stored = {"decoder": "beam", "beam": 4, "language_model": "words.safetensors"}
    (tmp_path / "model" / BEST_DECODING).write_text(json.dumps(stored))
    (tmp_path / "model" / "words.safetensors").touch()  # reading the options does not open it
    return tmp_path / "model"


@pytest.fixture
def samples():
    """A second of noise at 16 kHz."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, 16000).astype(np.float32)


def test_stored_options_and_given_ones(folder):
    words = str(folder / "words.safetensors")
    assert best_options(folder) == DecodingOptions(decoder="beam", beam=4, language_model=words)
    found = best_options(str(folder), beam=6, n_best=5, max_tokens=None)
    assert found == DecodingOptions(decoder="beam", beam=6, n_best=5, language_model=words)
    assert best_options(folder, beam=None).beam == 4
    with pytest.raises(AsrError, match="n_best 5: more than the beam of 4"):
        best_options(folder, n_best=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, f"no {BEST_DECODING}; choose the decoder"),
        ("{", f"{BEST_DECODING}: cannot be read"),
        ("[]", "not an object of decoding options"),
        ('{"beam": 4}', "with a decoder"),
        ('{"decoder": "beam", "bean": 4}', "not an object of decoding options"),
        (
            '{"decoder": "beam", "beam": "4"}',
            f"{BEST_DECODING}: beam '4': the value has the wrong type; give a whole",
        ),
        ('{"decoder": "beam", "beam": 2.5}', "beam 2.5: the value has the wrong type; give a whole number"),
        ('{"decoder": "beam", "beam": true}', "beam True: the value has the wrong type"),
        (
            '{"decoder": "beam", "hot_words": [1]}',
            r"hot_words \[1\]: the value has the wrong type; give a tuple of words",
        ),
        (
            '{"decoder": "beam", "language_model": 3}',
            "language_model 3: the value has the wrong type; give a text",
        ),
        (
            '{"decoder": "beam", "fallback": "no"}',
            "fallback 'no': the value has the wrong type; give true or false",
        ),
        ('{"decoder": ["beam"]}', "the value has the wrong type; give a text"),
    ],
)
def test_a_folder_without_usable_options(folder, content, message):
    (folder / BEST_DECODING).unlink()
    if content is not None:
        (folder / BEST_DECODING).write_text(content)
    with pytest.raises(AsrError, match=message):
        best_options(folder)


def test_a_language_model_that_is_given_has_its_own_weight(folder):
    stored = {"decoder": "beam", "language_model": "words.safetensors", "language_model_weight": 0.9}
    for name, read in ((BEST_DECODING, best_options), (DEFAULT_DECODING, default_options)):
        (folder / name).write_text(json.dumps(stored))
        assert read(folder).language_model_weight == 0.9
        assert read(folder, beam=3).language_model_weight == 0.9
        assert read(folder, language_model="mine").language_model_weight is None


def test_default_options(folder):
    assert default_options(folder) == DecodingOptions()
    assert default_options(folder, temperature=0.5, beam=None) == DecodingOptions(temperature=0.5)
    (folder / DEFAULT_DECODING).write_text('{"decoder": "beam", "beam": 3, "length_normalization": 0.5}')
    stored = DecodingOptions(decoder="beam", beam=3, length_normalization=0.5)
    assert default_options(folder) == stored
    assert default_options(folder, beam=5).beam == 5
    assert default_options(folder, decoder="greedy") == DecodingOptions(decoder="greedy")
    message = (
        r"temperature: the decoder 'beam' has no .*\(the model has decoder beam, beam 3, length_normal.*"
    )
    with pytest.raises(AsrError, match=message + rf"from its {DEFAULT_DECODING}\)$"):
        default_options(folder, temperature=0.5)
    (folder / DEFAULT_DECODING).write_text("{")
    with pytest.raises(AsrError, match=f"{DEFAULT_DECODING}: cannot be read"):
        default_options(folder)
    assert default_options(folder, decoder="greedy") == DecodingOptions(decoder="greedy")


def test_the_best_options_name_the_decoder(folder):
    with pytest.raises(AsrError, match=f"decoder: {BEST_DECODING} of the model already chooses it"):
        best_options(folder, decoder="greedy")


def test_a_stored_language_model_must_be_in_the_folder(folder):
    (folder / "words.safetensors").unlink()
    with pytest.raises(AsrError, match=f"{BEST_DECODING}: the language model words.safetensors is not in"):
        best_options(folder)


def test_a_recognizer_decodes_as_its_folder_says(folder, samples):
    (folder / DEFAULT_DECODING).write_text('{"decoder": "beam", "beam": 3}')
    found = Recognizer(folder, "cpu", voice_activity=False).transcribe(samples, sample_rate=16000)
    assert found.options["beam"] == 3 and found.segments[0].score is not None
    greedy = Recognizer(folder, "cpu", options=DecodingOptions(), voice_activity=False)
    assert greedy.transcribe(samples, sample_rate=16000).segments[0].score is None


def test_a_loaded_model_is_decoded_greedily(folder, samples):
    (folder / DEFAULT_DECODING).write_text('{"decoder": "beam", "beam": 3}')
    found = Recognizer(load_model(folder, "cpu"), voice_activity=False).transcribe(samples, sample_rate=16000)
    assert found.segments[0].score is None


@pytest.mark.parametrize(
    ("arguments", "beam"), [((), 3), (("--beam", "5"), 5), (("--decoder", "greedy"), None), (("--best",), 4)]
)
def test_the_command_decodes_as_the_folder_says(folder, samples, tmp_path, monkeypatch, arguments, beam):
    (folder / DEFAULT_DECODING).write_text('{"decoder": "beam", "beam": 3}')
    (folder / BEST_DECODING).write_text('{"decoder": "beam", "beam": 4}')
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for file in files:
        soundfile.write(file, samples, 16000)
    out = tmp_path / "out.jsonl"
    line = ["asr", "transcribe", *files, "--model", str(folder), *arguments]
    line += ["--no-voice-activity", "--workers", "2", "--output", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 0
    found = [json.loads(line)["options"].get("beam") for line in out.read_text().splitlines()]
    assert found == [beam, beam]


def test_only_the_final_text_of_a_stream_takes_the_time_of_the_stored_options(folder, samples):
    (folder / DEFAULT_DECODING).write_text('{"decoder": "beam", "beam": 3, "ctc_weight": 0.5}')
    recognizer = Recognizer(folder, "cpu", voice_activity=False)

    def scores(options=None):
        results = recognizer.transcribe_stream(np.split(samples, 4), 16000, options, every=0.2)
        return [(result.final, result.segment.score is not None) for result in results]

    found = scores()
    assert (False, False) in found and found[-1] == (True, True)
    assert all(final == scored for final, scored in found)
    assert all(scored for _, scored in scores(DecodingOptions(decoder="beam", beam=2)))


def test_unfinished_text_of_a_stream_keeps_the_stored_options_that_greedy_decoding_has(folder, samples):
    def unfinished(**stored):
        (folder / DEFAULT_DECODING).write_text(json.dumps({"decoder": "beam", "beam": 3} | stored))
        recognizer = Recognizer(folder, "cpu", voice_activity=False, min_confidence=0)
        results = recognizer.transcribe_stream(np.split(samples, 4), 16000, every=0.2)
        return [len(result.segment.text) for result in results if not result.final]

    assert max(unfinished()) > 1
    assert max(unfinished(max_tokens=1)) <= 1


def test_greedy_decoding_keeps_the_options_that_it_has():
    stored = DecodingOptions(decoder="beam", beam=3, ctc_weight=0.5, max_tokens=7, length_normalization=0.5)
    assert stored.as_greedy() == DecodingOptions(decoder="greedy", ctc_weight=0.5, max_tokens=7)


def test_a_value_of_none_is_not_given(folder):
    (folder / BEST_DECODING).write_text('{"decoder": "beam", "language_model": null}')
    assert best_options(folder) == DecodingOptions(decoder="beam")


@pytest.mark.parametrize("read", [best_options, default_options])
def test_the_english_model_has_such_options(read):
    options = read("english")
    assert options.decoder == "beam"
    assert options.language_model == str(SHIPPED / "english" / "words.safetensors")
    sample = SHIPPED.parents[1] / "data" / "samples" / "library.flac"
    recognizer = Recognizer("english", "cpu", options=options)
    (segment,) = recognizer.transcribe(sample).segments
    reference = sample.with_suffix(".txt").read_text().split()
    assert segment.score is not None  # beam search ranks its hypotheses, greedy decoding does not
    assert len(set(reference) - set(segment.text.split())) <= 3
