"""The job of `asr transcribe`: many inputs, results written as they are ready, progress."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import torch

from asr.decoding import DecodingOptions
from asr.errors import AsrError
from asr.files import printable
from asr.threads import default_threads
from asr.transcription.inputs import Input, find_inputs
from asr.transcription.order import in_order
from asr.transcription.output import Output, begin_parts, merge_parts, part_of, remove_file, write_text
from asr.transcription.progress import TranscriptionProgress
from asr.transcription.ranks import join_ranks
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript
from asr.transcription.workers import Result, WorkerPool, expected_seconds

WORTH_A_PROCESS = 60.0  # seconds of audio: with less, starting a process takes too much of the time


def read_hot_words(path: Path) -> tuple[str, ...]:
    """The words and phrases of a file, one on each line; empty lines are ignored.

    Raises AsrError when it cannot be read or has none.
    """
    name = printable(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise AsrError(f"{name}: cannot read hot words ({error.strerror}); give a text file") from None
    except UnicodeDecodeError:
        raise AsrError(f"{name}: the hot words are not UTF-8; save the file as UTF-8") from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise AsrError(f"{name}: no hot words in this file; write one on each line")
    return found


def transcribe_inputs(
    arguments: Iterable[str],
    output: Output,
    model: Path | None = None,
    device: str = "auto",
    batch_seconds: float | None = None,
    options: DecodingOptions | None = None,
    precision: str = "auto",
    threads: int | None = None,
    voice_activity: bool | None = None,
    workers: int | None = None,
    ray: bool = False,
    channels: str = "mix",
    min_confidence: float | None = None,
) -> int:
    """Transcribe everything the arguments name. Returns the number of inputs and arguments that failed.

    Results are written as they are ready. Failures are reported on stderr, one line each. `workers` is the
    number of processes; None: one for each of the CPU `threads` if there is enough to do. With `ray`, the
    processes belong to a Ray cluster. Processes that torchrun started share the work. Raises AsrError when
    the model cannot be loaded or a result cannot be written.
    """
    output.check()
    if options and (options.n_best or 1) > 1 and "json" not in (output.stream_format, *output.folder_formats):
        raise AsrError(
            "--n-best: texts other than the best are written as JSON; add --output FILE, or --output-dir DIR "
            "and --format json"
        )
    ranks = join_ranks()
    if ranks.store and ray:
        raise AsrError("--ray starts its own processes; run the command without torchrun")
    if ranks.store and workers is not None:
        raise AsrError("--workers: torchrun starts the processes; omit the option")
    if ray and threads is not None:
        raise AsrError("--threads: the processes of a Ray cluster have one thread each; omit the option")
    if ranks.store:
        output.check_shared()
    arguments = list(arguments)
    inputs, problems = find_inputs(arguments)

    def plan() -> list[int]:
        output.check_inputs(inputs, arguments)
        if output.file and output.stream_format == "json":
            begin_parts(output, inputs)
        if ranks.store:
            remove_file(output)  # the main process merges the parts into a new file
        return output.plan(inputs)

    planned = ranks.decide(plan)
    todo = [inputs[i] for i in planned]
    count, threads = _processes(
        ranks.device(device), todo, workers, threads, 1 if ranks.store or ray else None
    )
    if threads:
        torch.set_num_threads(threads)
    # Loading takes seconds. With nothing to transcribe, it is left out.
    recognizer: Recognizer | None = None
    if planned:
        recognizer = Recognizer(
            model, ranks.device(device), batch_seconds, options, precision, voice_activity, channels,
            min_confidence,
        )  # fmt: skip
        output.check_words(recognizer.has_word_times)
    failed = len(problems) if ranks.main else 0
    writer = output if not (ranks.store and output.file) else part_of(output, ranks.rank)
    with ExitStack() as stack:
        results: Iterator[tuple[int, Result]] = iter(())
        if recognizer is not None and ray:
            results = _on_ray(recognizer, todo, workers)
        elif recognizer is not None and count > 1:
            # The pool forks here, before the progress bar starts its thread.
            pool = stack.enter_context(WorkerPool(recognizer, count, threads or 1))
            results = pool.transcribe(todo, ordered=not output.folder)
        elif recognizer is not None:
            results = recognizer.transcribe_unordered(todo, ranks.share(range(len(todo))))
        file = stack.enter_context(writer.open())
        expected = [expected_seconds(input) for input in todo]
        progress = stack.enter_context(TranscriptionProgress(len(todo), sum(expected), not ranks.store))
        for problem in problems if ranks.main else ():
            progress.report(problem)
        if not file and output.header():
            progress.print(output.header().removesuffix("\n"))
        sink = _Sink(writer, inputs, file, progress)
        for position, result in results if output.folder or ranks.store else in_order(results):
            failed += not sink.write(planned[position], result)
            progress.advance(result.duration if isinstance(result, Transcript) else 0.0, expected[position])
    failed = ranks.total("failed", failed)
    if ranks.store and output.file and ranks.main:
        merge_parts(output.file, inputs)
    ranks.total("merged", 0)  # torchrun ends all processes when one ends with an error
    if failed and ranks.main:
        total = len(inputs) + len(problems)
        print(f"asr: {failed} of {total} inputs could not be transcribed", file=sys.stderr)
    return failed


def _processes(
    device: str, inputs: Sequence[Input], workers: int | None, threads: int | None, fixed: int | None
) -> tuple[int, int | None]:
    """The number of processes, and of the threads of each (None: as torch has it)."""
    if fixed:
        return fixed, threads
    available = threads or default_threads()
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if workers is None:
        seconds = sum(map(expected_seconds, inputs))
        worth = int(seconds / WORTH_A_PROCESS)
        workers = max(1, min(available or torch.get_num_threads(), len(inputs), worth)) if on_cpu else 1
    workers = max(1, min(workers, len(inputs)))
    if workers > 1 and on_cpu:
        return workers, max(1, (available or torch.get_num_threads()) // workers)
    return workers, available


def _on_ray(
    recognizer: Recognizer, inputs: Sequence[Input], actors: int | None
) -> Iterator[tuple[int, Result]]:
    """The results of the inputs from a Ray cluster, each with its position."""
    from asr.transcription.ray_workers import transcribe_on_ray  # Ray is an extra

    return transcribe_on_ray(recognizer, inputs, actors)


class _Sink:
    """Where each result goes."""

    def __init__(
        self, output: Output, inputs: Sequence[Input], file: IO[str] | None, progress: TranscriptionProgress
    ) -> None:
        self._output, self._file, self._progress = output, file, progress
        self._paths = output.paths(inputs) if output.folder else None

    def write(self, position: int, result: Result) -> bool:
        """Write a result as a whole, or report its error. Returns whether there was no error.

        Raises AsrError when nothing can be written any more, such as on a full disk.
        """
        if isinstance(result, AsrError):
            self._progress.report(result)
            return False
        if self._paths:
            try:
                self._output.write_files(self._paths[position], result)
            except AsrError as error:
                if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                    raise
                self._progress.report(error)
                return False
        elif text := self._output.stream_text(result):
            if self._file:
                write_text(self._file, text)
            else:
                self._progress.print(text.removesuffix("\n"))
        return True
