"""Every recipe of a public corpus is a valid experiment, and trains on a miniature of its data.

Those of recipes/whisper, which need the original's folder, are in tests/public/test_finetune.py. The one of
recipes/english needs folders of noise and rooms; tests/test_config.py loads it.
"""

import lzma
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from asr.datasets.manifest import Utterance, write_manifest

ROOT = Path(__file__).parents[2]
NOT_RUN = ("librispeech", "aishell", "tedlium3", "common_voice")
FOLDERS = (*NOT_RUN, "yesno", "fsdd", "speechocean762", "books_lm")
RECIPES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / "recipes" / folder).glob("*.yaml")
    if path.name != "bottleneck.yaml"  # of another architecture, with its own program
)
LANGUAGE = [path for path in RECIPES if "kind: language model" in path.read_text(encoding="utf-8")]
RECOGNIZERS = [path for path in RECIPES if path not in LANGUAGE]


def ids(path):
    return f"{path.parent.name}/{path.stem}"


def test_there_are_recipes():
    assert {path.parent.name for path in RECIPES} == set(FOLDERS)
    assert [path.name for path in LANGUAGE] == ["books.yaml", "lm.yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=ids)
def test_the_page_beside_a_recipe_gives_its_command(path):
    page = (path.parent / "README.md").read_text(encoding="utf-8")
    assert path.name in page
    if path.parent.name in NOT_RUN:
        assert f"{path.relative_to(ROOT)}" in page and "asr prepare" in page and "not run here" in page


@pytest.mark.usefixtures("no_attention_plots")
@pytest.mark.parametrize("path", RECOGNIZERS, ids=ids)
def test_two_steps_on_a_miniature(path, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from asr.commands import app
    from asr.training.runs import read_run

    monkeypatch.chdir(tmp_path)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    for number, name in enumerate(settings["data"]["train"] + settings["data"]["dev"]):
        utterances = []
        for item in range(2):
            wav = tmp_path / f"{number}-{item}.wav"
            samples = 0.1 * np.random.default_rng(item).standard_normal(8000)
            soundfile.write(wav, samples, 16000)
            utterances.append(Utterance(f"{number}-{item}", wav, ("AB", "BA A")[item], 0.5, f"s{number}"))
        write_manifest(tmp_path / name, utterances)
    small = ["model.d_model=16", "model.n_heads=2", "model.d_ffn=16", "model.front_end.channels=2"]
    small += ["model.encoder.n_layers=1", "data.workers=1", "optim.warmup_steps=1", "train.steps=2"]
    small += ["train.validate_every=2", "train.precision=float32", "train.init=null"]
    small += ["augment.join.per_epoch=1", "augment.silence=1"]
    small += ["model.decoder.n_layers=1"] if settings["model"].get("decoder", True) else []
    result = CliRunner().invoke(app, ["train", str(path), *small, "--run", "run", "--device", "cpu"])
    # A run that learned nothing ends with 1; two steps are enough for everything else.
    assert result.exit_code in (0, 1), result.output
    assert read_run(tmp_path / "run").step == 2


@pytest.mark.parametrize("path", LANGUAGE, ids=ids)
def test_two_steps_of_a_language_model(path, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from asr.commands import app
    from asr.training.runs import read_run

    monkeypatch.chdir(tmp_path)
    (name,) = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["text"]
    (tmp_path / name).parent.mkdir(parents=True)
    with (lzma.open if name.endswith(".xz") else open)(tmp_path / name, "wt") as out:
        out.writelines(f"line {'abcdefg'[number % 7]} of some text\n" for number in range(40))
    small = ["model.d_model=16", "model.n_heads=2", "model.d_ffn=16", "model.n_layers=1", "data.hold_out=8"]
    small += ["data.characters_of=null", "train.steps=2", "train.validate_every=2", "optim.warmup_steps=1"]
    result = CliRunner().invoke(app, ["train-lm", str(path), *small, "--run", "run", "--device", "cpu"])
    assert result.exit_code in (0, 1), result.output
    assert read_run(tmp_path / "run").step == 2


def test_the_bottleneck_recipe_counts_words_errors_and_utterances_by_length(tmp_path):
    bottleneck = import_recipe("fsdd/bottleneck.py")
    texts = [("one two", "one two"), ("six", "nine"), ("two two", "two"), ("four", "four"), ("ten", "ten")]
    utterances = [Utterance(str(n), tmp_path / f"{n}.wav", ref) for n, (ref, _) in enumerate(texts)]
    rates = bottleneck.wer_by_length(utterances, [hyp for _, hyp in texts])
    assert rates == {1: pytest.approx(100 / 3), 2: pytest.approx(25)}
    lines = bottleneck.table(utterances, {"run": rates}).splitlines()
    assert lines[0] == "| words | utterances | run |"
    assert lines[2:] == ["| 1 | 3 | 33.3 |", "| 2 | 2 | 25.0 |"]
    bottleneck.draw({"run": rates}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def import_recipe(path):
    """A program of the recipes as a module."""
    specification = spec_from_file_location(Path(path).stem, ROOT / "recipes" / path)
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
