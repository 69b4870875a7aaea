"""The most accurate options of a model come from its folder; options that are given replace them."""

import json
import shutil

import pytest

from asr import Recognizer
from asr.decoding import DecodingOptions
from asr.decoding.best import BEST_DECODING, best_options
from asr.errors import AsrError
from asr.model_folder import SHIPPED


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A model folder whose best options are a beam of 4 with a language model."""
    shutil.copytree(tiny_model, tmp_path / "model")
    stored = {"decoder": "beam", "beam": 4, "language_model": "words.safetensors"}
    (tmp_path / "model" / BEST_DECODING).write_text(json.dumps(stored))
    return tmp_path / "model"


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


def test_a_value_of_none_is_not_given(folder):
    (folder / BEST_DECODING).write_text('{"decoder": "beam", "language_model": null}')
    assert best_options(folder) == DecodingOptions(decoder="beam")


def test_the_english_model_has_such_options():
    options = best_options("english")
    assert options.language_model == str(SHIPPED / "english" / "words.safetensors")
    sample = SHIPPED.parents[1] / "data" / "samples" / "library.flac"
    recognizer = Recognizer("english", "cpu", options=options)
    (segment,) = recognizer.transcribe(sample).segments
    reference = sample.with_suffix(".txt").read_text().split()
    assert segment.score is not None  # beam search ranks its hypotheses, greedy decoding does not
    assert len(set(reference) - set(segment.text.split())) <= 3
