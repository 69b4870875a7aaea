"""The job of `asr listen`: text while somebody speaks, from a microphone or from a pipe of samples."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy as np
from rich.cells import cell_len

from asr.errors import AsrError
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import StreamResult

BLOCK_SECONDS = 0.1


def listen(
    model: Path | None, device: str, pipe: bool, rate: int, microphone: str | None, times: bool
) -> None:
    """Transcribe a microphone, or with `pipe` the samples (int16, one channel) on standard input.

    In a terminal the line grows while somebody speaks; elsewhere only final texts are printed. It ends at the
    end of the input or at Ctrl-C. The text of the audio before that is still printed. Raises AsrError where
    there is no microphone.
    """
    if pipe and sys.stdin is None:
        raise AsrError("-: standard input is closed; give it samples, or omit the - to use the microphone")
    recognizer = Recognizer(model, device)
    blocks = pcm_blocks(sys.stdin.buffer, rate) if pipe else microphone_blocks(rate, microphone)
    show(recognizer.transcribe_stream(until_interrupted(blocks), rate), times)


def show(results: Iterable[StreamResult], times: bool = False) -> None:
    """Print results: final texts as lines; others only in a terminal, where later texts replace them."""
    terminal = sys.stdout.isatty()
    for result in results:
        segment = result.segment
        text = f"{segment.start:8.2f} {segment.end:8.2f}  {segment.text}" if times else segment.text
        if result.final and segment.text:
            print(f"\r\x1b[K{text}" if terminal else text, flush=True)
        elif terminal:
            # Of a long text the end is shown, so that it stays on one line.
            while cell_len(text) >= shutil.get_terminal_size().columns:
                text = text[1:]
            print(f"\r\x1b[K{text}", end="", flush=True)


def until_interrupted(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks up to the first Ctrl-C.

    It has the same effect as the end of the input, and does not interrupt the decoding of a block. The second
    Ctrl-C raises KeyboardInterrupt.
    """
    waiting = interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if waiting or interrupted:
            raise KeyboardInterrupt
        interrupted = True

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        while not interrupted:
            waiting = True
            block = next(blocks, None)
            waiting = False
            if block is None:
                return
            yield block
    except KeyboardInterrupt:  # while it waited for a block
        return
    finally:
        signal.signal(signal.SIGINT, previous)


def pcm_blocks(file: IO[bytes], rate: int) -> Iterator[np.ndarray]:
    """Blocks of 0.1 s of a pipe of 16-bit little-endian samples, as soon as they are there."""
    size = 2 * max(1, round(BLOCK_SECONDS * rate))
    while data := file.read(size):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)


def microphone_blocks(rate: int, name: str | None = None) -> Iterator[np.ndarray]:
    """Blocks of 0.1 s of a microphone: `name` is a part of its name or its number; None: the default.

    Raises AsrError without sounddevice (the extra `microphone`) and without a microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio library
        raise AsrError(
            f"a microphone needs sounddevice and PortAudio ({error}); pip install sounddevice, or give "
            "samples on standard input: asr listen -"
        ) from None
    received: SimpleQueue[np.ndarray] = SimpleQueue()

    def receive(samples: np.ndarray, *_: Any) -> None:
        received.put(samples[:, 0].copy())

    try:
        with sounddevice.InputStream(
            samplerate=rate,
            device=int(name) if name and name.isdigit() else name,
            channels=1,
            dtype="int16",
            blocksize=round(BLOCK_SECONDS * rate),
            callback=receive,
        ):
            while True:
                yield received.get()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AsrError(f"the microphone cannot be used ({error}); choose one with --microphone") from None
