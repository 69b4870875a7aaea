"""The work of `asr inspect`: a page and figures of a recording, or the cost of a model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.errors import AsrError
from asr.files import atomic_write, printable
from asr.inspection.cost import SECONDS, TOKENS_PER_SECOND, model_cost, table
from asr.inspection.gather import gather
from asr.inspection.page import page
from asr.inspection.png import check_matplotlib, write_figures
from asr.model_folder import PRETRAINED, load_bundle, load_model

DEPTH = 3  # levels of the table of modules


@dataclass(frozen=True)
class RecordingOptions:
    """How a recording is inspected. None means the default, which each comment gives after the semicolon."""

    output: Path | None = None  # the page; AUDIO.inspect.html in the current folder, unless there is a png
    png: Path | None = None  # a folder for figures; none are made
    reference: str | None = None  # a text for teacher forcing; the text is recognized
    start: float | None = None  # seconds; 0
    device: str | None = None  # the device; auto


@dataclass(frozen=True)
class ModelOptions:
    """How the cost of a model is shown.

    None means the default, which each comment gives after the semicolon.
    """

    json: bool | None = None  # whether to print JSON with all modules; a table
    depth: int | None = None  # levels of the table; 3
    tokens_per_second: float | None = None  # tokens that the decoder reads; 15


def inspect(
    audio: str | None,
    model: Path | None,
    duration: float | None,
    recording: RecordingOptions,
    cost: ModelOptions,
) -> Iterator[str]:
    """Write the page and figures of a recording, or count the cost of a model. Returns lines of text.

    `duration` is the length of the part of the recording, or the length for which operations are counted.
    Raises AsrError for options that do not apply, and as `gather` and `load_bundle` do.
    """
    if duration is not None and not 0 < duration < math.inf:
        raise AsrError(f"--duration {duration:g}: impossible; give seconds of audio, above 0")
    if cost.tokens_per_second is not None and not math.isfinite(cost.tokens_per_second):
        raise AsrError(f"--tokens-per-second {cost.tokens_per_second:g}: impossible; give a number")
    if audio is None:
        _refuse(recording, "this option is for a recording; name an audio file, or omit the option")
        return _model_lines(model, duration, cost)
    _refuse(cost, "this option is for a model without a recording; omit the option, or the audio file")
    return _recording_lines(audio, model, duration, recording)


def _refuse(options: RecordingOptions | ModelOptions, reason: str) -> None:
    """Raises AsrError for the first option that was given."""
    for name, value in vars(options).items():
        if value is not None:
            raise AsrError(f"--{name.replace('_', '-')}: {reason}")


def _model_lines(model: Path | None, duration: float | None, options: ModelOptions) -> Iterator[str]:
    if options.json and options.depth is not None:
        raise AsrError("--depth: JSON always has all modules; omit the option")
    bundle = load_bundle(model or PRETRAINED, "cpu")
    if duration is not None and bundle.features is None:
        raise AsrError("--duration: a language model has no audio; omit the option")
    rate = TOKENS_PER_SECOND if options.tokens_per_second is None else options.tokens_per_second
    found = model_cost(bundle, duration or SECONDS, rate)
    if options.tokens_per_second is not None and found.tokens is None:
        raise AsrError("--tokens-per-second: this model has no decoder; omit the option")
    if options.json:
        yield found.to_json()
    else:
        yield from table(found, DEPTH if options.depth is None else options.depth)


def _recording_lines(
    source: str, model: Path | None, duration: float | None, options: RecordingOptions
) -> Iterator[str]:
    if options.png is not None:
        check_matplotlib()  # before the work
    output = options.output
    if output is None and options.png is None:
        output = Path(f"{Path(source).stem}.inspect.html")
    if output is not None and _same_file(output, source):
        raise AsrError(f"{printable(output)}: the page would replace the audio; choose another file")
    bundle = load_model(model, options.device or "auto")
    name = str(model or PRETRAINED.name)
    found = gather(bundle, source, options.start or 0.0, duration, options.reference, printable(name))
    end = found.start + found.seconds
    of = f" of {found.total:.2f} s" if found.total is not None else ""
    yield f"{found.start:.2f} to {end:.2f} s{of}: {found.text or '(no text)'}"
    yield from found.lacks
    if output is not None:
        with atomic_write(output) as out:
            out.writelines(page(found))
        yield f"page: {printable(output)}, {os.path.getsize(output) / 1e6:.1f} MB"  # noqa: PTH202
    if options.png is not None:
        for path in write_figures(found, options.png):
            yield f"figure: {printable(path)}"


def _same_file(output: Path, source: str) -> bool:
    try:
        return os.path.samefile(output, source)  # noqa: PTH121
    except OSError:
        return False  # one of them does not exist
