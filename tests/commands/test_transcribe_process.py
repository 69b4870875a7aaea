"""`asr transcribe` in another process: pipes, terminals and interruptions."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import PATIENCE, in_a_terminal, run, start, tone

from asr.files import printable


@pytest.fixture
def endless(sounds):
    """A manifest with more work than a test can wait for."""
    line = '{{"id": "{}", "audio": "a.wav", "text": "", "duration": 0.3}}\n'
    manifest = sounds / "endless.jsonl"
    manifest.write_text("".join(line.format(i) for i in range(30000)))
    return manifest


def test_a_closed_pipe_ends_the_command(tiny_model, endless):
    """`asr transcribe ... | head -1` ends soon, without a message about the pipe."""
    process = start("transcribe", endless, "--model", tiny_model, "--batch-seconds", "2")
    assert process.stdout.readline().startswith(b"0\t")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_standard_output_that_is_full(tiny_model, sounds):
    with Path("/dev/full").open("w") as full:
        status, _, err = run("transcribe", sounds / "a.wav", "--model", tiny_model, stdout=full)
    assert (status, err.count(b"\n")) == (1, 1)
    assert err.startswith(b"asr: error: <stdout>: cannot be written (No space left on device); make room")


def test_ctrl_c(tiny_model, endless, tmp_path):
    """All files that were written are complete."""
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--batch-seconds", "2", "--output-dir", out, "--format", "json")
    # Background jobs of a shell ignore the signal, and so do their children; pytest may be one.
    process = start(
        "transcribe", endless, *options, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while not (out / "100.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in err
    files = list(out.iterdir())
    assert 100 < len(files) < 30000
    for path in files:
        assert path.suffix == ".json" and json.loads(path.read_text())["audio"].endswith("a.wav")


def test_ctrl_c_while_nothing_comes_through_a_pipe(tiny_model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = start(
        *("transcribe", tmp_path / "pipe", "--model", tiny_model),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    writer = None
    while writer is None:  # until the command reads from the pipe
        assert process.poll() is None
        with suppress(OSError):
            writer = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    os.close(writer)
    assert process.returncode == 130 and b"Traceback" not in err and b"Exception" not in err


def test_long_lines_in_a_terminal_are_not_broken(tiny_model, sounds):
    """A terminal wraps long lines itself, so a copied text has no line breaks."""
    name = sounds / ("long name " * 9 + ".wav")
    shutil.copy(sounds / "a.wav", name)
    shown, err = in_a_terminal("stdout", "transcribe", name, sounds / "gone.wav", "--model", tiny_model)
    assert str(name).encode() in shown and b"transcribing" in shown
    # Messages stay on stderr also when the bar is in the terminal of stdout.
    assert err.startswith(f"asr: error: {sounds}/gone.wav: no such file".encode()) and b"gone" not in shown


def test_text_and_progress_go_to_different_streams(tiny_model, sounds):
    """With a terminal on stderr there is a bar. The text is on stdout, with its tab."""
    shown, out = in_a_terminal("stderr", "transcribe", sounds, sounds / "gone.wav", "--model", tiny_model)
    assert [line.partition(b"\t")[0] for line in out.splitlines()] == [
        f"{sounds}/{name}".encode() for name in ("a.wav", "b/b.wav", "c.flac")
    ]
    assert b"transcribing" in shown and b"gone.wav" in shown


def test_every_bad_input_gets_its_line(asr, tiny_model, sounds):
    """One clear line each, in the order given. Unusual recordings are transcribed."""
    files = {}
    for name, rate, channels in (("8000", 8000, 1), ("96000", 96000, 1), ("channels", 16000, 8)):
        files[name] = sounds / f"{name}.wav"
        soundfile.write(files[name], np.stack([tone(0.4, rate)] * channels, 1), rate)
    good = list(files)
    files["caf\udce9"] = sounds / "caf\udce9.wav"  # a byte that is not UTF-8
    try:
        shutil.copy(files["8000"], files["caf\udce9"])
        good.append("caf\udce9")
    except OSError:  # macOS: then it is a missing file
        pass
    messages = {
        "empty": "empty file (0 bytes); copy or record it again",
        "no_samples": "the file has no audio (0 samples); leave it out",
        "nan": "NaN or infinite sample at 0.100 s",
        "truncated": "truncated: ",
        "text": "not an audio file that can be read",
        "missing": "no such file; check the path",
        "l" * 300: "cannot be opened (File name too long)",
    }
    for name in messages:
        files[name] = sounds / f"{name}.wav"
    files["empty"].touch()
    soundfile.write(files["no_samples"], np.zeros(0), 16000)
    broken = tone(0.2)
    broken[1600] = np.nan
    soundfile.write(files["nan"], broken, 16000, "FLOAT")
    soundfile.write(files["truncated"], tone(0.2), 16000)
    os.truncate(files["truncated"], 3000)
    files["text"].write_text("This is text, not audio.\n")

    order = sorted(files, key=lambda name: name[::-1])
    status, out, lines = asr("transcribe", *(files[name] for name in order), "--model", tiny_model)
    assert status == 1
    found = [line.split("\t") for line in out]
    assert [name for name, _ in found] == [printable(files[name]) for name in order if name in good]
    wrong = [name for name in order if name not in good]
    assert lines.pop() == f"asr: {len(wrong)} of {len(order)} inputs could not be transcribed"
    for name, line in zip(wrong, lines, strict=True):
        problem = messages.get(name, "no such file")
        assert line.startswith(f"asr: error: {printable(files[name])}: {problem}")


def test_links_and_devices_are_written_to(asr, tiny_model, sounds, tmp_path):
    """--output follows a link, appends to a pipe, and never replaces /dev/stdout."""
    link, real = tmp_path / "link.jsonl", tmp_path / "real.jsonl"
    real.touch()
    link.symlink_to(real)
    assert asr("transcribe", sounds, "--model", tiny_model, "--output", link) == (0, [], [])
    assert link.is_symlink() and len(lines := real.read_text().splitlines()) == 3
    assert asr("transcribe", sounds, "--model", tiny_model, "--output", "-") == (0, lines, [])
    status, out, err = run("transcribe", sounds, "--model", tiny_model, "--output", "/dev/stdout")
    assert (status, err, out.decode().splitlines()) == (0, b"", lines)
