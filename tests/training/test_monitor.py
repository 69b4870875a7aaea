"""What a run shows: rates over recent steps, the time left, and everything TensorBoard gets."""

from __future__ import annotations

import io
import math
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asr.config import TrainConfig
from asr.datasets.corpus import Corpus
from asr.datasets.loading import Loader
from asr.datasets.manifest import read_manifest
from asr.model_folder import load_model
from asr.scoring import score
from asr.training import monitor as module
from asr.training.attention_plot import choose_utterance, draw_attention
from asr.training.monitor import Monitor
from asr.training.steps import Step
from asr.training.validate import Validation

SAMPLES = Path(__file__).parents[2] / "data" / "samples" / "manifest.jsonl"


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def step(number, **values):
    usual = dict(
        epoch=0, loss=2.0, attention_loss=1.5, ctc_loss=3.0, gradient_norm=1.0, learning_rate=1e-3
    ) | dict(utterances=8, audio=30.0, wait=0.0, skipped=(), bad=(), stop=False)
    return Step(number=number, **usual | values)


def of(steps, validate_every=10**6, show=1):
    return TrainConfig(steps=steps, validate_every=validate_every, show=show)


def validation():
    return Validation(3.0, score({"a": "x y", "b": "z"}, {"a": "x", "b": "z"}), bad=())


def board(run):
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return found.Reload()


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_says_speed_wait_and_time_left(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(1000)) as monitor:
        for number in range(1, 41):
            clock.now += 0.5
            monitor.step(step(number, audio=20.0, wait=0.05))
    (line,) = lines(capsys)  # one every 20 s
    assert line.startswith("step 40/1000  epoch 0  loss 2.000  ")
    assert "40 s audio/s" in line and "data wait 10%" in line and line.endswith("8 min left")  # 960 x 0.5 s


def test_rates_are_those_of_recent_steps_and_validations_are_not_steps(tmp_path, clock, capsys):
    """A slow beginning is forgotten, validations slow nothing down; those to come count in the time left."""
    with Monitor(tmp_path, 0, of(1000, 200, show=0)) as monitor:
        for number in range(1, 601):
            clock.now += 10.0 if number <= 10 else 0.1
            monitor.step(step(number, audio=5.0, loss=9.0 if number < 400 else 1.0))
            if number % 200 == 0:
                clock.now += 300.0
                monitor.validation(number, validation(), None)
        capsys.readouterr()
        clock.now += 20.0  # the line is due; the step itself took as long: one in a hundred
        monitor.step(step(601, audio=5.0, loss=1.0))
    (line,) = lines(capsys)
    assert "loss 1.000" in line
    seconds = 99 * 0.1 + 20.0
    assert f"{500 / seconds:.0f} s audio/s" in line
    left = 399 * seconds / 100 + 2 * 300.0
    assert line.endswith(f"{left / 60:.0f} min left")


def test_a_resumed_run_counts_its_own_time_alone(tmp_path, clock, capsys):
    with Monitor(tmp_path, 900, of(1000)) as monitor:
        for number in range(901, 922):
            clock.now += 1.0
            monitor.step(step(number))
    (line,) = lines(capsys)
    assert line.startswith("step 920/1000") and line.endswith("80 s left")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (95, "2 min"),
        (5300, "88 min"),
        (5500, "1.5 h"),
        (36000, "10 h"),
        (1e6, "11.6 days"),
    ],
)
def test_durations_have_the_unit_that_reads_best(seconds, said):
    assert module._duration(seconds) == said


def test_a_loss_that_is_not_finite_does_not_hide_the_others(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(10, 5)) as monitor:
        for number, loss in ((1, 1.0), (2, math.nan), (3, math.inf), (4, 3.0)):
            clock.now += 6.0
            monitor.step(step(number, loss=loss))
    (line,) = lines(capsys)
    assert "loss 2.000" in line


def test_tensorboard_has_losses_scores_transcripts_and_pictures(tmp_path, clock, tiny_model):
    bundle = load_model(tiny_model, "cpu")
    loader = Loader(Corpus.of(read_manifest(SAMPLES)[:1]), bundle.tokenizer, bundle.config, train=False)
    example = choose_utterance(loader)
    with Monitor(tmp_path, 0, of(10, 5), example) as monitor:
        for number in (1, 2):
            clock.now += 15.0
            monitor.step(step(number, loss=float(number), wait=3.0))
        monitor.validation(2, validation(), bundle)
    found = board(tmp_path)

    def scalars(name):
        return [(event.step, pytest.approx(event.value)) for event in found.Scalars(name)]

    assert scalars("train/loss") == [(1, 1.0), (2, 2.0)]
    assert scalars("train/attention_loss") == [(1, 1.5), (2, 1.5)]
    assert scalars("train/ctc_loss") == [(1, 3.0), (2, 3.0)]
    assert scalars("train/learning_rate") == [(1, 1e-3), (2, 1e-3)]
    assert scalars("train/gradient_norm") == [(1, 1.0), (2, 1.0)]
    assert scalars("speed/audio_seconds_per_second") == [(2, 2.0)]
    assert scalars("speed/data_wait_share") == [(2, 0.2)]
    assert scalars("dev/loss") == [(2, 3.0)]
    assert scalars("dev/wer") == [(2, 1 / 3)]
    assert scalars("dev/cer") == [(2, 0.5)]
    (text,) = found.Tensors("dev/transcripts/text_summary")
    assert text.tensor_proto.string_val[0].decode() == "x y → x"
    (shown,) = found.Images("dev/attention")
    assert shown.step == 2
    image = Image.open(io.BytesIO(shown.encoded_image_string))
    assert np.array_equal(np.asarray(image), draw_attention(bundle, example))


def test_what_a_killed_run_showed_beyond_its_checkpoint_is_taken_back(tmp_path, clock):
    for begin in (0, 2):
        with Monitor(tmp_path, begin, of(10, 5)) as monitor:
            for number in range(begin + 1, 5):
                clock.now += 1.0
                monitor.step(step(number, loss=10.0 * begin + number))
    found = board(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 23.0),
        (4, 24.0),
    ]


def test_transcripts_are_shown_as_they_are(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(10, 5)) as monitor:
        odd = Validation(3.0, score({"a": "[red]x[/] \n"}, {"a": "机器"}), bad=())
        monitor.validation(1, odd, None)
    said = "\n".join(lines(capsys))
    assert re.search(r"step 1  dev loss 3.000  CER \d+.\d\d%  WER 100.00%", said)
    assert r"'[red]x[/] \n' -> '机器'" in said or "'[red]x[/]' -> '机器'" in said


@contextmanager
def no_room_beyond(size):
    """No file of this process may grow beyond so many bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_for_curves_training_goes_on_and_later_they_do_too(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(5000, 3000, show=0)) as monitor:
        clock.now += 1.0
        monitor.step(step(1))
        with no_room_beyond(20_000):
            for number in range(2, 3001):
                clock.now += 0.01
                monitor.step(step(number))
            monitor._draw("flush")
        assert monitor.board is None
        monitor.validation(3000, validation(), None)
        monitor.step(step(3001, loss=7.0))
    said = "\n".join(lines(capsys))
    assert said.count("no curves until the next validation (File too large)") == 1
    assert "Traceback" not in said
    assert [(e.step, e.value) for e in board(tmp_path).Scalars("train/loss")][-1] == (3001, 7.0)


def test_a_log_that_cannot_be_written_does_not_end_the_training(tmp_path):
    with Monitor(tmp_path, 0, of(10)) as monitor, Path("/dev/full").open("w") as full:
        monitor.console.file = full
        monitor.say("hello " * 10_000)
