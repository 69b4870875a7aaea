"""`asr train-lm` from the command line, and `asr info` for its folder."""

import pytest
from typer.testing import CliRunner

from asr.commands import app
from asr.errors import AsrError


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text("a cab\nbad cab\na bad cab\n" * 9)
    path = tmp_path / "lm.yaml"
    path.write_text(
        "model: {d_model: 8, n_heads: 1, d_ffn: 8, n_layers: 1}\n"
        f"data: {{text: [{tmp_path / 'text.txt'}], hold_out: 3, max_characters: 20, batch_characters: 60}}\n"
        "train: {steps: 2}\n"
    )
    return path


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_a_run_and_the_output_of_info(recipe, tmp_path):
    found = call("train-lm", recipe, "data.case=upper", "--run", tmp_path / "run", "--device", "cpu")
    assert found.exit_code == 0
    assert "data.text: 24 sentences" in found.stderr and "held-out text: 3 sentences" in found.stderr
    assert "held-out perplexity" in found.stderr
    shown = call("info", "--model", tmp_path / "run").stdout
    assert (
        "d_model 8" in shown and "n_layers 1" in shown and "5: ' ABCD'" in shown and "dev_perplexity" in shown
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.label_smoothing=0.1", "train.label_smoothing: unknown key; this section has seed, init"),
        ("model.n_heads=3", "d_model 8 is not a multiple of n_heads 3"),
        ("data.dev=[other.txt]", "two ways to hold text out"),
        ("data.max_characters=60", "do not fit into batch_characters 60"),
        ("data.case=title", "'as_is', 'upper' or 'lower'"),
        ("kind=recognizer", "model.n_layers: unknown key"),
    ],
)
def test_contradictory_settings_are_refused_with_their_place(recipe, tmp_path, override, message):
    with pytest.raises(AsrError) as caught:
        call("train-lm", recipe, override, "--run", tmp_path / "run")
    assert message in str(caught.value) and (
        "lm.yaml, line" in str(caught.value) or override in str(caught.value)
    )
    assert not (tmp_path / "run").exists()
