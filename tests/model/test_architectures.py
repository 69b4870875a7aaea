"""The page of architectures: its settings exist, and those of public models give their sizes."""

import re
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from asr.model.encoder_decoder import EncoderDecoder

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
SECTIONS = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}


def examples(section: str) -> list[str]:
    """The indented examples of a section."""
    return [textwrap.dedent(each) for each in re.findall(r"(?m)(?:^    .*\n)+", SECTIONS[section])]


def parameters(settings: dict, vocabulary_size: int) -> int:
    config = EncoderDecoder.Config.model_validate(settings)
    with torch.device("meta"):
        return sum(p.numel() for p in EncoderDecoder(config, 80, vocabulary_size).parameters())


def test_public_models_have_their_size():
    """Numbers of the models in transformers; Whisper's counts its 1500 sinusoids as weights."""
    whisper, speech2text = map(yaml.safe_load, examples("The settings of public models"))
    assert parameters(whisper, 51865) == 37_760_640 - 1500 * 384
    assert parameters(speech2text, 10000) == 29_536_256


def test_settings_in_the_tables_and_examples_exist():
    encoders = [
        {"encoder": yaml.safe_load(each)} for each in re.findall(r"`(\{[^`]+\})`", SECTIONS["Encoders"])
    ]
    front_ends = [yaml.safe_load(line) for line in "".join(examples("Front ends")).splitlines()]
    assert len(encoders) == 5 and len(front_ends) == 4
    for settings in [*encoders, *front_ends, yaml.safe_load(examples("Blocks")[0])["model"]]:
        EncoderDecoder.Config.model_validate(settings)
    with pytest.raises(ValueError, match="unknown key"):
        EncoderDecoder.Config.model_validate({"encoder": {"kind": "transformer", "windows": 16}})
