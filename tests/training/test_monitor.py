"""The output of a run: rates of recent steps, the time left, and the events for TensorBoard."""

from __future__ import annotations

import io
import math
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asr.training import monitor as module
from asr.training.log import Log
from asr.training.settings import LoopConfig
from asr.training.steps import Step
from asr.training.tasks import Validation


class Audio:
    """The part of a task that the monitor reads."""

    unit = "s audio"
    speed_name = "audio_seconds_per_second"


def Monitor(run, step, config, task=Audio):
    return module.Monitor(run, step, config, task, Log())


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def step(number, **values):
    losses = {"loss": values.pop("loss", 2.0), "attention_loss": 1.5, "ctc_loss": 3.0}
    usual = dict(epoch=0, losses=losses, gradient_norm=1.0, learning_rate=1e-3, amount=30.0, wait=0.0) | dict(
        skipped="", exploded=False, bad=(), unalignable=(), ends_epoch=False, stop=False
    )
    return Step(number=number, **usual | values)


def of(steps, validate_every=10**6):
    return LoopConfig(steps=steps, validate_every=validate_every)


def validation(*examples):
    return Validation({"loss": 3.0, "cer": 0.5, "wer": 0.25}, "dev loss 3.000  CER 50.00%", examples)


def board(run):
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return found.Reload()


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_has_speed_waiting_time_and_time_left(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(1000)) as monitor:
        for number in range(1, 41):
            clock.now += 0.5
            monitor.step(step(number, amount=20.0, wait=0.05))
    (line,) = lines(capsys)  # one every 20 s
    assert line.startswith("step 40/1000  epoch 0  loss 2.000  ")
    assert "40 s audio/s" in line and "data wait 10%" in line and line.endswith("8 min left")  # 960 x 0.5 s


def test_rates_are_those_of_recent_steps_and_validations_are_not_steps(tmp_path, clock, capsys):
    """A slow beginning and validations do not affect the rate. Validations to come count in the time left."""
    with Monitor(tmp_path, 0, of(1000, 200)) as monitor:
        for number in range(1, 601):
            clock.now += 10.0 if number <= 10 else 0.1
            monitor.step(step(number, amount=5.0, loss=9.0 if number < 400 else 1.0))
            if number % 200 == 0:
                clock.now += 300.0
                monitor.validation(number, validation())
        capsys.readouterr()
        clock.now += 20.0  # the line is due; the step itself took as long: one in a hundred
        monitor.step(step(601, amount=5.0, loss=1.0))
    (line,) = lines(capsys)
    assert "loss 1.000" in line
    seconds = 99 * 0.1 + 20.0
    assert f"{500 / seconds:.0f} s audio/s" in line
    left = 399 * seconds / 100 + 2 * 300.0
    assert line.endswith(f"{left / 60:.0f} min left")


def test_a_resumed_run_counts_only_its_own_time(tmp_path, clock, capsys):
    with Monitor(tmp_path, 900, of(1000)) as monitor:
        for number in range(901, 922):
            clock.now += 1.0
            monitor.step(step(number))
    (line,) = lines(capsys)
    assert line.startswith("step 920/1000") and line.endswith("80 s left")


@pytest.mark.parametrize(
    ("seconds", "message"),
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
def test_durations_have_the_unit_that_reads_best(seconds, message):
    assert module._duration(seconds) == message


def test_a_loss_that_is_not_finite_does_not_hide_the_others(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(10, 5)) as monitor:
        for number, loss in ((1, 1.0), (2, math.nan), (3, math.inf), (4, 3.0)):
            clock.now += 6.0
            monitor.step(step(number, loss=loss))
    (line,) = lines(capsys)
    assert "loss 2.000" in line


def test_tensorboard_has_losses_scores_transcripts_and_figures(tmp_path, clock):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    with Monitor(tmp_path, 0, of(10, 5)) as monitor:
        for number in (1, 2):
            clock.now += 15.0
            monitor.step(step(number, loss=float(number), wait=3.0))
        monitor.validation(2, validation("'x y' -> 'x'", "'z' -> 'z'"), Figure(figsize=(2, 1), dpi=50))
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
    assert scalars("dev/wer") == [(2, 0.25)]
    assert scalars("dev/cer") == [(2, 0.5)]
    (text,) = found.Tensors("dev/transcripts/text_summary")
    assert text.tensor_proto.string_val[0].decode() == "'x y' -> 'x'\n\n'z' -> 'z'"
    (shown,) = found.Images("dev/attention")
    assert shown.step == 2
    image = Image.open(io.BytesIO(shown.encoded_image_string))
    assert image.size == (100, 50)


def test_events_after_the_last_checkpoint_of_a_killed_run_are_removed(tmp_path, clock):
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
        monitor.validation(1, validation("'[red]x[/]' -> '机器'"))
    message = "\n".join(lines(capsys))
    assert "step 1  dev loss 3.000  CER 50.00%" in message and "    '[red]x[/]' -> '机器'" in message


def test_a_language_model_is_measured_in_characters(tmp_path, clock, capsys):
    class Characters:
        unit = "characters"
        speed_name = "characters_per_second"

    with Monitor(tmp_path, 0, of(10, 5), Characters) as monitor:
        clock.now += 30.0
        monitor.step(step(1, amount=60_000.0))
    assert "2,000 characters/s" in lines(capsys)[0]
    assert board(tmp_path).Scalars("speed/characters_per_second")[0].value == 2000


@contextmanager
def no_room_after(size):
    """No file of this process can have more bytes than this: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_the_curves_for_a_while_and_not_the_training(tmp_path, clock, capsys):
    with Monitor(tmp_path, 0, of(5000, 3000)) as monitor:
        clock.now += 1.0
        monitor.step(step(1))
        with no_room_after(20_000):
            for number in range(2, 3001):
                clock.now += 0.01
                monitor.step(step(number))
            monitor._draw("flush")
        assert monitor.board is None
        time.sleep(1.1)  # the files of curves are in order only by the second in their names
        monitor.validation(3000, validation())
        monitor.step(step(3001, loss=7.0))
    message = "\n".join(lines(capsys))
    assert message.count("no curves until the next validation (File too large)") == 1
    assert "Traceback" not in message
    assert [(e.step, e.value) for e in board(tmp_path).Scalars("train/loss")][-1] == (3001, 7.0)


def test_a_log_that_cannot_be_written_does_not_end_the_training(tmp_path, monkeypatch):
    with Monitor(tmp_path, 0, of(10)) as monitor, Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        monitor.log.say("hello " * 10_000)
        monkeypatch.undo()


def test_a_silent_monitor_writes_nothing(tmp_path, clock, capsys):
    with module.Monitor(tmp_path, 0, of(10), Audio, Log(silent=True)) as monitor:
        clock.now += 30.0
        monitor.step(step(1))
        monitor.log.say("a line")
    assert not lines(capsys) and not list(tmp_path.iterdir())
