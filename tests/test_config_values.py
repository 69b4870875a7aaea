"""Any value in place of a section or a setting is accepted, or refused with one line that names its place."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.config import Config, LanguageConfig, load_experiment
from asr.errors import AsrError
from asr.model_folder import SHIPPED, read_config

PARTS = {"encoder": {"kind": "conformer"}, "front_end": {"kind": "patches"}, "decoder": {"kind": "lstm"}}
FOLDERS = {"noise": {"folder": "a"}, "rooms": {"folder": "b"}, "vocal_tract": {}, "noise_db": [-60, -40]}
CONFIGURATIONS: list[dict[str, Any]] = [
    {**Config().model_dump(mode="json"), "kind": "recognizer"},
    LanguageConfig().model_dump(mode="json"),
    Config.model_validate(
        {
            "model": PARTS | {"intermediate_ctc": {"layers": [1]}},
            "augment": FOLDERS,
            "features": {"kind": "whisper_log_mel"},
            "tokenizer": {"kind": "byte_level_bpe"},
            "train": {"scheduled_sampling": {}, "phonemes": None},
        }
    ).model_dump(mode="json"),
    json.loads((SHIPPED / "digits" / "config.json").read_text()),  # of an earlier version
    {
        "model": {"encoder_layers": 1, "decoder_layers": 1, "conv_channels": 4, "encoder": {}, "decoder": {}},
        "data": {"characters": "ab"},
    },
    {"model": {"kind": "init"}, "features": {"kind": "init"}, "train": {"init": "digits"}},
]
JSON = st.recursive(
    st.sampled_from([None, True, 0, -1, 5, 2.5, 1e308, 10**400, "", "x", "init", "\ud800", "2024-13-45"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "n_layers", "folder", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(values: Any, place: tuple = ()) -> Iterator[tuple]:
    """The keys to every section and setting."""
    if place:
        yield place
    if isinstance(values, dict | list):
        for key in values if isinstance(values, dict) else range(len(values)):
            yield from places(values[key], (*place, key))


def replaced(values: Any, place: tuple, value: Any) -> Any:
    if not place:
        return value
    copy = values.copy()
    copy[place[0]] = replaced(copy[place[0]], place[1:], value)
    return copy


@pytest.fixture(scope="module")
def complaint(tmp_path_factory):
    """The lines that a configuration is refused with, as that of a model folder and as an experiment."""
    folder = tmp_path_factory.mktemp("values")
    path = folder / "config.json"

    def complaint(values):
        path.write_text(json.dumps(values))
        found = []
        for read in (lambda: read_config(folder), lambda: load_experiment(path)):
            try:
                read()
            except AsrError as error:
                assert str(error) and "\n" not in str(error)
                found.append(str(error).removeprefix(f"{path}"))
        return found

    return complaint


EVERY_PLACE = [(number, place) for number, each in enumerate(CONFIGURATIONS) for place in places(each)]


@settings(max_examples=150)
@given(st.sampled_from(EVERY_PLACE), JSON)
@example((2, ("features",)), {"window_ms": 1e308})
@example((0, ("features", "hop_ms")), 1e308)
@example((0, ("features", "sample_rate")), 10**400)
@example((5, ("train", "init")), 5)
@example((5, ("train", "init")), ["a"])
def test_a_value_is_accepted_or_refused_with_one_line(complaint, place, value):
    number, keys = place
    complaint(replaced(CONFIGURATIONS[number], keys, value))


@pytest.mark.parametrize("value", [5, 2.5, "x", [], [1]], ids=repr)
@pytest.mark.parametrize("name", ["front_end", "encoder", "decoder"])
@pytest.mark.parametrize("shorthand", [{}, {"encoder_layers": 1, "decoder_layers": 1, "conv_channels": 4}])
def test_a_part_that_is_not_a_section_is_named(complaint, name, value, shorthand):
    """With and without the settings that `model` had in earlier versions."""
    found = complaint({"model": shorthand | {name: value}})
    assert len(found) == 2 and f": model.{name}: a section of settings is needed" in found[0]


@pytest.mark.parametrize("value", [5, 2.5, "x", [], [1], None], ids=repr)
@pytest.mark.parametrize("name", ["features", "tokenizer", "model", "data", "train", "optim", "augment"])
def test_a_section_that_is_not_one_is_named(complaint, name, value):
    found = complaint({name: value})
    assert len(found) == 2 and all(f": {name}: " in each for each in found)


@pytest.mark.parametrize("text", ["train: {init: 2024-13-45}", f"train: {{steps: {'9' * 5000}}}"])
def test_a_value_that_yaml_cannot_make_is_refused(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(AsrError, match=r"a\.yaml: not valid YAML"):
        load_experiment(path)
    path.write_text("")
    key, _, value = text.partition(": ")
    with pytest.raises(AsrError, match="the value is not valid YAML"):
        load_experiment(path, (f"{key}={value}",))
