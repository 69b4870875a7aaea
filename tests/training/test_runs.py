"""`asr runs`: the table of runs from their files, damaged ones included."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import sections
from hypothesis import given
from hypothesis import strategies as st

from asr.config import Config, LanguageConfig
from asr.errors import AsrError
from asr.model_folder import load_model, load_tensors, save_tensors
from asr.training import checkpoints
from asr.training.loop import train
from asr.training.runs import as_json, find_runs, read_run, report

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data" / "samples" / "digits" / "manifest.jsonl"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps with two validations."""
    sizes = sections(d_model=16, n_heads=2, d_ffn=32, encoder_layers=1, decoder_layers=1, conv_channels=4)
    config = {
        "model": sizes,
        "data": {"train": [SAMPLES], "dev": [SAMPLES], "first": 2},
        "train": {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "average": 2},
    }
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(Config.model_validate(config), folder, device="cpu") == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of that run under another name, some files of it changed: {file: change of its content}."""

    def make(name, changes=()):
        folder = Path(shutil.copytree(trained, tmp_path / "runs" / name))
        for file, change in dict(changes).items():
            (path,) = folder.glob(file)
            values = json.loads(path.read_text())
            change(values)
            path.write_text(json.dumps(values))
        return folder

    return make


def score(run, **metadata):
    """Change the metadata of the run folder's weights."""
    tensors, message = load_tensors(run / "model.safetensors")
    message = {k: v for k, v in message.items() if k not in ("dev_cer", "dev_wer", "averaged")}
    save_tensors(run / "model.safetensors", tensors, message | metadata)


NEWEST = "checkpoints/*4/trainer.json"


def test_a_run_is_read_as_training_wrote_it(trained):
    run = read_run(trained)
    progress = json.loads((checkpoints.newest(trained) / "trainer.json").read_text())
    model = load_model(trained, "cpu")
    assert run.status == "finished" and (run.step, run.steps) == (4, 4)
    assert run.parameters == model.parameters()
    assert (run.cer, run.wer) == (float(model.metadata["dev_cer"]), float(model.metadata["dev_wer"]))
    assert run.history == progress["history"] and len(run.history) == 2
    assert run.minutes == pytest.approx(progress["seconds"] / 60)
    assert run.settings["train.steps"] == 4 and run.settings["augment.speeds"] == [1.0]
    saved = time.mktime(time.strptime(run.saved, "%Y-%m-%d %H:%M"))
    assert 0 <= time.time() - saved < 600


def test_scores_are_those_of_the_model_in_the_run_folder(copy):
    run = copy("a")
    score(run, dev_cer="0.25", dev_wer="0.5", step="4", averaged="[2, 4]")
    assert (read_run(run).cer, read_run(run).wer, read_run(run).model) == (0.25, 0.5, "average of 2")
    score(run, dev_cer="0.25", dev_wer="0.5", step="2")
    assert read_run(run).model == "step 2"


def test_the_status_follows_from_the_files(copy):
    def at(step, cers):
        def change(progress):
            progress["step"] = step
            progress["history"] = [
                {"step": i + 1, "loss": 3.0, "cer": cer, "wer": 2 * cer} for i, cer in enumerate(cers)
            ]

        return change

    def settings(**values):
        return lambda config: config["train"].update({"steps": 100} | values)

    def status(name, step, cers, **values):
        return read_run(copy(name, {"config.json": settings(**values), NEWEST: at(step, cers)})).status

    assert status("going", 3, [0.5, 0.4, 0.3], patience=2) == "at 3 of 100"
    assert (
        status("patience", 3, [0.3, 0.4, 0.5], patience=2)
        == "finished at 3: no better score for 2 validations"
    )
    assert (
        status("again", 3, [0.3, 0.3, 0.4], patience=2) == "finished at 3: no better score for 2 validations"
    )  # equal is not better
    assert status("wer", 2, [0.3, 0.05], stop_wer=0.1) == "finished at 2: train.stop_wer is reached"
    assert status("on", 4, [0.3, 0.05], stop_wer=0.1, patience=1) == "at 4 of 100"
    shutil.rmtree((alone := copy("alone")) / "checkpoints")
    assert read_run(alone).status == "a model alone"


def test_a_run_that_has_saved_nothing_yet(tmp_path):
    Config().save(tmp_path / "config.json")
    run = read_run(tmp_path)
    assert run.status == "nothing saved yet" and run.steps == Config().train.steps and run.cer is None


def test_a_run_before_its_first_validation_has_no_scores(copy):
    folder = copy("early", {NEWEST: lambda progress: progress.update(history=[], step=1)})
    (folder / "model.safetensors").unlink()
    run = read_run(folder)
    assert (run.status, run.cer, run.model) == ("at 1 of 4", None, None) and run.parameters > 0
    assert "early" in report([run], None)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("config.json", None, "config.json: No such file"),
        ("config.json", b"{", "config.json: not JSON"),
        ("config.json", b"[]", "config.json: not a JSON object"),
        ("config.json", b'{"architectures": ["other"]}', "config.json: not the configuration of a run"),
        ("model.safetensors", b"", "model.safetensors: not a safetensors file"),
        ("model.safetensors", b"\xff" * 100, "model.safetensors: not a safetensors file"),
        ("checkpoints/step-00000004/trainer.json", b"\xff", "trainer.json: not JSON"),
        ("checkpoints/step-00000004/trainer.json", None, "trainer.json: No such file"),
        ("checkpoints/step-00000004/trainer.json", b'{"step": 3}', "broken: "),
    ],
)
def test_broken_runs_are_named_and_do_not_stop_the_table(copy, file, content, named):
    good, broken = copy("good"), copy("broken")
    (broken / file).unlink()
    if content is not None:
        (broken / file).write_bytes(content)
    found = [read_run(folder) for folder in find_runs([good.parent])]
    assert [Path(run.run).name for run in found] == ["broken", "good"]
    assert found[0].status.startswith("broken: ") and named in found[0].status
    assert "\n" not in found[0].status
    assert found[1].status == "finished"
    for width in (None, 60):
        assert "broken" in report(found, width)


@given(st.binary(max_size=60), st.sampled_from(["config.json", "model.safetensors", NEWEST]))
def test_a_run_with_any_file_content_can_be_listed(trained, tmp_path_factory, content, file):
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("any") / "run"))
    next(folder.glob(file)).write_bytes(content)
    assert read_run(folder).status.startswith("broken: ")


def test_only_settings_that_differ_are_columns(copy):
    copy("a")
    copy("b", {"config.json": lambda c: c["optim"].update(lr=0.003)})
    copy("c", {"config.json": lambda c: c["augment"].update(specaugment=None)})
    header, *rows = (line.split("\t") for line in report(all_of(copy), None).splitlines())
    names = header[header.index("saved") + 1 :]
    assert {"augment.specaugment.frequency_masks", "optim.lr"} <= set(names)
    assert all(name.startswith("augment.specaugment") or name == "optim.lr" for name in names)
    assert [row[header.index("optim.lr")] for row in rows] == ["0.001", "0.003", "0.001"]
    assert [row[header.index("augment.specaugment")] for row in rows] == ["", "", "none"]
    assert all(len(row) == len(header) for row in rows)


def all_of(copy):
    return [read_run(folder) for folder in find_runs([copy("last").parent])][:-1]


def test_settings_newer_than_a_run_have_their_defaults(copy):
    copy("a")
    copy("b", {"config.json": lambda c: c["train"].pop("label_smoothing")})
    header = report(all_of(copy), None).splitlines()[0]
    assert "label_smoothing" not in header


def test_settings_no_longer_known_are_shown_as_they_are(copy):
    copy("a")
    copy("b", {"config.json": lambda c: c["train"].update(magic=7)})
    found = all_of(copy)
    assert found[1].status == "finished" and found[1].settings["train.magic"] == 7
    assert "train.magic" in report(found, None)


def test_a_narrow_terminal_gets_a_column_for_each_run(copy):
    copy("a")
    copy("b", {"config.json": lambda c: c["optim"].update(lr=0.003)})
    found = all_of(copy)
    for run in found:
        run.run = Path(run.run).name
    wide, narrow = report(found, 200).splitlines(), report(found, 60).splitlines()
    assert wide[0].split()[:2] == ["run", "status"] and [line.split()[0] for line in wide[1:]] == ["a", "b"]
    assert narrow[0].split() == ["run", "a", "b"] and narrow[-1].split() == ["optim.lr", "0.001", "0.003"]
    assert max(map(len, narrow)) <= 60


def test_runs_are_found_at_any_depth_once_and_not_within_runs(copy, tmp_path):
    a = copy("a")
    b = copy("deep/er/b")
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / "link").symlink_to(b)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    found = find_runs([tmp_path / "runs", a])
    assert found == [a, b, tmp_path / "runs" / "link"]
    with pytest.raises(AsrError, match="no such folder"):
        find_runs([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsrError, match="no run in this folder"):
        find_runs([tmp_path / "empty"])


def test_json_has_everything(copy):
    folder = copy("a")
    (only,) = json.loads(as_json([read_run(folder)]))
    assert only["run"] == str(folder) and only["settings"]["model.encoder.d_model"] == 16
    assert [entry["step"] for entry in only["history"]] == [2, 4]


def test_the_command_line_lists_runs_without_torch(copy):
    folder = copy("a").parent
    shutil.copytree(folder / "a", folder / "b")
    command = [sys.executable, "-X", "importtime", str(ROOT / "cli.py"), "runs"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["run", "a", "b"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported and not imported & {"torch", "numpy", "librosa", "soundfile"}

    missing = subprocess.run(
        [*command, "--json", str(folder / "no")], capture_output=True, text=True, timeout=600
    )
    assert missing.returncode == 1 and "asr: error: " in missing.stderr and "Traceback" not in missing.stderr


def test_runs_of_language_models_have_a_perplexity(tmp_path, capsys):
    lines = ["abc cba", "bca", "cab abc"] * 10
    (tmp_path / "text.txt").write_text("\n".join(lines))
    config = {
        "model": {"d_model": 16, "n_heads": 2, "d_ffn": 32, "n_layers": 1},
        "data": {"text": [tmp_path / "text.txt"], "hold_out": 5},
        "train": {"steps": 2, "validate_every": 2},
    }
    assert train(LanguageConfig.model_validate(config), tmp_path / "lm", device="cpu") == 0
    run = read_run(tmp_path / "lm")
    assert run.status == "finished" and run.cer is None and run.model == "step 2"
    assert run.perplexity == pytest.approx(run.history[-1]["perplexity"])
    header, row = (line.split("\t") for line in report([run], None).splitlines())
    assert row[header.index("perplexity")] == f"{run.perplexity:.3f}"
