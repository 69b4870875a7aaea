"""`asr inspect`: what it writes and prints, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest

from asr import commands
from asr.config import Config
from asr.model_folder import Bundle
from asr.tokenizers import CharacterTokenizer

ROOT = Path(__file__).parents[2]
SOUND = ROOT / "data" / "samples" / "digits" / "pin.wav"


@pytest.fixture
def asr(monkeypatch, capsys):
    """`asr inspect ...` in this process: exit status, lines of stdout, lines of stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["asr", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            commands.main()
        out, err = capsys.readouterr()
        return caught.value.code, out.splitlines(), err.splitlines()

    return call


def test_a_page_is_written_where_the_command_runs(asr, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = asr(SOUND, "--model", tiny_model, "--reference", "one")
    assert (status, err) == (0, [])
    assert out[0].endswith(": one") and out[-1].startswith("page: pin.inspect.html, 0.")
    assert [path.name for path in tmp_path.iterdir()] == ["pin.inspect.html"]
    assert "pin.wav" in (tmp_path / "pin.inspect.html").read_text(encoding="utf-8")


def test_figures_alone_make_no_page(asr, tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    status, out, _ = asr(SOUND, "--model", tiny_model, "--reference", "$one"[1:], "--png", "figures")
    assert status == 0 and [path.name for path in tmp_path.iterdir()] == ["figures"]
    names = ["overview.png", "cross_attention.png", "self_attention.png"]
    assert out[-3:] == [f"figure: figures/{name}" for name in names]
    for name in names:
        with Image.open(tmp_path / "figures" / name) as image:
            assert image.format == "PNG" and min(image.size) > 200


@pytest.fixture(scope="module")
def ctc_model(tmp_path_factory):
    """A folder of a model that has no decoder."""
    sizes = {"d_model": 16, "n_heads": 2, "d_ffn": 16, "encoder": {"n_layers": 1}, "decoder": None}
    config = Config.model_validate({"model": sizes, "train": {"ctc_weight": 1.0}})
    folder = tmp_path_factory.mktemp("ctc")
    Bundle.build(config, CharacterTokenizer.from_characters(["abc "])).save(folder, voice_activity=False)
    return folder


def test_a_model_without_a_decoder_says_what_is_missing(asr, ctc_model, tmp_path):
    page = tmp_path / "a" / "page.html"
    status, out, _ = asr(SOUND, "--model", ctc_model, "--output", page, "--duration", 0.6)
    assert status == 0 and page.is_file()
    assert "No cross-attention: this model has no decoder, and reads its text from CTC alone." in out
    status, out, err = asr("--model", ctc_model, "--tokens-per-second", 3)
    assert (status, out) == (1, []) and "--tokens-per-second: this model has no decoder" in err[0]


def test_the_modules_of_a_model(asr, tiny_model):
    status, out, err = asr("--model", tiny_model, "--duration", 2, "--depth", 1)
    assert (status, err) == (0, [])
    assert out[0].split()[:3] == ["module", "kind", "parameters"]
    assert any("2 s of audio" in line for line in out) and any("reads 30 tokens" in line for line in out)
    status, out, _ = asr("--model", tiny_model, "--json", "--tokens-per-second", 4)
    assert status == 0 and json.loads("\n".join(out))["tokens"] == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.wav"], "nothing.wav: no such file"),
        (["--reference", "one"], "--reference: this option is for a recording"),
        (["--png", "x"], "--png: this option is for a recording"),
        (["--start", "1"], "--start: this option is for a recording"),
        (["--device", "cpu"], "--device: this option is for a recording"),
        ([SOUND, "--json"], "--json: this option is for a model without a recording"),
        (
            [SOUND, "--tokens-per-second", "3"],
            "--tokens-per-second: this option is for a model without a recording",
        ),
        ([SOUND, "--duration", "0"], "--duration 0: impossible; give seconds"),
        (["--duration", "inf"], "--duration inf: impossible; give seconds"),
        (["--tokens-per-second", "inf"], "--tokens-per-second inf: impossible"),
        ([SOUND, "--output", SOUND], "the page would replace the audio"),
        ([__file__], "not an audio file"),
        (["--json", "--depth", "2"], "--depth: JSON always has all modules"),
    ],
)
def test_what_does_not_apply_is_refused(asr, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = SOUND.read_bytes()
    status, out, err = asr(*arguments)
    assert status == 1 and out == [] and len(err) == 1 and message in err[0]
    assert SOUND.read_bytes() == before and not list(tmp_path.iterdir())


def test_figures_without_matplotlib_are_refused_before_the_work(asr, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = asr(SOUND, "--model", tmp_path / "no model", "--png", tmp_path / "x")
    assert status == 1 and "pip install matplotlib" in err[0]
