"""Several processes that transcribe one list, each with its own recognizer.

A process has one Python interpreter, so on a CPU processes with one thread each use the cores better than one
process with several threads. If the system kills a process, only the inputs that it had are affected, and
they are tried again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import torch

from asr.errors import AsrError
from asr.files import printable
from asr.transcription.inputs import Input, in_memory, is_portable
from asr.transcription.recognizer import FIRST_WINDOW, WINDOW, Recognizer
from asr.transcription.transcript import Transcript

AHEAD = 10_000  # results of later inputs that may wait for an earlier one
PATIENCE = 0.1  # seconds between two looks at pipes that are being read
BYTES_PER_SECOND = 32_000.0  # the first estimate, for 16 bits at 16 kHz; results correct it

Result = Transcript | AsrError
_Task = tuple[int, Input]  # position in the list, and the recording


def expected_seconds(input: Input, bytes_per_second: float = BYTES_PER_SECOND) -> float:
    """The estimated seconds of audio of an input, without opening it; 0 if they cannot be estimated."""
    if input.duration is not None:
        return input.duration
    if isinstance(input.audio, np.ndarray):
        return len(input.audio) / (input.sample_rate or 1)
    with suppress(OSError, ValueError):
        return os.path.getsize(input.audio) / bytes_per_second if isinstance(input.audio, Path) else 0.0  # noqa: PTH202
    return 0.0


@dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, and what it has been given and not returned."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    tasks: dict[int, Input] = field(default_factory=dict)
    alone: bool = False  # whether the task is the second attempt at an input


class WorkerPool:
    """Processes with a recognizer each.

    A context manager: the processes end when it is left, also after an error.

    Processes are forked on Linux when the model is on a CPU and each has one thread, so the weights are in
    memory once. Fork before other threads start. In all other cases each process loads the model itself. A
    forked process with several threads would wait forever: fork does not copy the threads of OpenMP.
    """

    def __init__(self, recognizer: Recognizer, count: int, threads: int = 1) -> None:
        self._recognizer, self._count, self._threads = recognizer, count, threads
        forks = sys.platform == "linux" and recognizer.bundle.device.type == "cpu" and threads == 1
        self._context = multiprocessing.get_context("fork" if forks else "spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        for _ in range(self._count):
            self._workers.append(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.connection.close()
            worker.process.join()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        forks = self._context.get_start_method() == "fork"
        # A forked process inherits the parent's ends of the pipes. It closes them: otherwise no process would
        # notice that the parent has ended.
        inherited = [ours, *(w.connection for w in self._workers)] if forks else []
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(self._recognizer, theirs, inherited, self._threads), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def transcribe(self, inputs: Sequence[Input], ordered: bool = True) -> Iterator[tuple[int, Result]]:
        """The position of each input and its result, as soon as it is there, in any order.

        An input whose process was killed by the system is tried once more, without other inputs. If that
        process ends too, the result is an AsrError. With `ordered`, no input is started that is more than
        AHEAD inputs after the first one without a result, so that few results wait for their turn. Exceptions
        in a process and in reading an open file are raised here.
        """
        work = _Work(inputs, self._recognizer.batch_seconds * WINDOW, self._count)
        retries: deque[_Task] = deque()
        finished, oldest = bytearray(len(inputs)), 0
        while True:
            while oldest < len(inputs) and finished[oldest]:
                oldest += 1
            limit = oldest + AHEAD if ordered else len(inputs)
            for worker in list(self._workers):
                if worker.tasks:
                    continue
                alone = bool(retries)
                tasks = [retries.popleft()] if retries else work.chunk(limit)
                if not tasks:
                    continue
                worker.tasks, worker.alone = dict(tasks), alone
                if not _send(worker.connection, tasks):  # it ended while it had nothing to do
                    self._replace(worker)
                    retries.extend(tasks)
            failed = work.failed()
            for position, error in failed:
                finished[position] = True
                yield position, error
            busy = [worker for worker in self._workers if worker.tasks]
            if not busy and not work.reading:
                if retries or failed:  # after a failure, the limit is higher
                    continue
                return
            for connection in wait([w.connection for w in busy], PATIENCE if work.reading else None):
                worker = next(w for w in busy if w.connection is connection)
                for position, result in self._received(worker, retries):
                    finished[position] = True
                    work.learn(inputs[position], result)
                    yield position, result

    def _received(self, worker: _Worker, retries: deque[_Task]) -> Iterator[tuple[int, Result]]:
        """The result that a worker sent.

        If the worker has ended, its inputs are tried again or have an error.
        """
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            if not worker.alone:
                retries.extend(worker.tasks.items())
                return
            for position, input in worker.tasks.items():
                yield position, _lost(input, worker.process.exitcode)
            return
        if isinstance(message, BaseException):
            raise message
        position, result = message
        del worker.tasks[position]
        yield position, result

    def _replace(self, worker: _Worker) -> None:
        """Start a process in the place of one that ended."""
        worker.connection.close()
        worker.process.join(PATIENCE * 50)
        worker.process.kill()
        worker.process.join()
        self._workers[self._workers.index(worker)] = self._start()


class _Work:
    """The inputs that no worker has yet, in portions of similar length in seconds."""

    def __init__(self, inputs: Sequence[Input], most: float, workers: int) -> None:
        self._inputs, self._most, self._workers = inputs, most, workers
        self._next, self._size = 0, FIRST_WINDOW
        self._bytes, self._seconds = BYTES_PER_SECOND, 1.0  # of the results so far
        self._left = sum(map(expected_seconds, inputs))  # seconds, by the first estimate
        self._read: SimpleQueue[tuple[int, Input | Exception]] = SimpleQueue()
        self._errors: list[tuple[int, AsrError]] = []
        self.reading = 0  # pipes that are being read

    def chunk(self, limit: int) -> list[_Task]:
        """The next inputs, up to the position `limit`.

        The first and last chunks are small, so that all processes finish together. Only this process can read
        pipes and open files: a thread reads each one, and it is in a later chunk.
        """
        rate = self._bytes / self._seconds
        share = self._left * BYTES_PER_SECOND / rate / (3 * self._workers)
        room = min(self._size, max(share, FIRST_WINDOW))
        self._size = min(2 * self._size, self._most)
        tasks = self._arrived()
        while self._next < min(limit, len(self._inputs)) and room > 0:
            position, self._next = self._next, self._next + 1
            input = self._inputs[position]
            self._left -= expected_seconds(input)
            if is_portable(input):
                tasks.append((position, input))
                room -= expected_seconds(input, rate) + 0.1  # a file without audio takes time too
            else:
                self.reading += 1
                threading.Thread(target=self._read_here, args=(position, input), daemon=True).start()
        return tasks

    def _read_here(self, position: int, input: Input) -> None:
        try:
            self._read.put((position, in_memory(input)))
        except Exception as error:  # without an answer, `transcribe` would wait forever
            self._read.put((position, error))

    def _arrived(self) -> list[_Task]:
        tasks: list[_Task] = []
        with suppress(Empty):
            while True:
                position, found = self._read.get_nowait()
                self.reading -= 1
                if isinstance(found, AsrError):
                    self._errors.append((position, found))
                elif isinstance(found, Exception):
                    raise found
                else:
                    tasks.append((position, found))
        return tasks

    def failed(self) -> list[tuple[int, AsrError]]:
        """Pipes that could not be read, each once."""
        errors, self._errors = self._errors, []
        return errors

    def learn(self, input: Input, result: Result) -> None:
        """Count the bytes of a file and its seconds, for the size of the next portions."""
        if isinstance(result, Transcript) and isinstance(input.audio, Path) and input.duration is None:
            with suppress(OSError):
                self._bytes += os.path.getsize(input.audio)  # noqa: PTH202
                self._seconds += result.duration


def _send(connection: Connection, tasks: list[_Task]) -> bool:
    """Give tasks to a worker. False if its process has ended."""
    try:
        connection.send(tasks)
    except OSError:
        return False
    return True


def _lost(input: Input, status: int | None) -> AsrError:
    """The error of an input at which two processes ended."""
    reason = f"status {status}"
    with suppress(ValueError):
        reason = signal.Signals(-(status or 0)).name
    return AsrError(
        f"{printable(input.id)}: the process that transcribed it was killed twice ({reason}); check the "
        "memory and the file"
    )


def _serve(
    recognizer: Recognizer, connection: Connection, inherited: Sequence[Connection], threads: int
) -> None:
    """The loop of a worker process: it receives lists of tasks, and sends (position, result)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    for other in inherited:
        other.close()
    torch.set_num_threads(threads)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            tasks: list[_Task] = connection.recv()
            try:
                results = recognizer.transcribe_all((input for _, input in tasks), small_windows=False)
                for (position, _), result in zip(tasks, results, strict=True):
                    connection.send((position, result))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:
                if not isinstance(error, AsrError):
                    error.add_note("".join(traceback.format_exception(error)))
                connection.send(error)
