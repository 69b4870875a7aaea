"""`asr inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    audio: Annotated[
        str | None, typer.Argument(help="A recording. Without one, the model's modules are listed.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder, a model that ships (english, digits), or a name on Hugging Face's hub, "
            "such as openai/whisper-small.",
            show_default="english",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page.", show_default="AUDIO.inspect.html, unless --png is given")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Folder for figures. They need matplotlib.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Give the decoder this text in place of the recognized one (teacher forcing)."),
    ] = None,
    start: Annotated[
        float | None, typer.Option(min=0.0, help="Where to begin, in seconds.", show_default="0")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Length of the part, in seconds. Without a recording: length for which operations "
            "are counted.",
            show_default="to the end; 10",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", show_default="auto")
    ] = None,
    json: Annotated[bool | None, typer.Option("--json", help="List all modules as JSON.")] = None,
    depth: Annotated[
        int | None, typer.Option(min=0, help="Levels of modules in the list.", show_default="3")
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Decoder tokens in a second of audio, for the counted operations.",
            show_default="15",
        ),
    ] = None,
) -> None:
    """Show what a model does with a recording: a page with its attention, posteriors and times of tokens.

    A long recording is cut as for transcription, and the first segment is shown. Without a recording, list
    the parameters and the floating-point operations of every module of the model.
    """
    from asr.inspection.run import ModelOptions, RecordingOptions
    from asr.inspection.run import inspect as work

    recording = RecordingOptions(output, png, reference, start, device)
    for line in work(audio, model, duration, recording, ModelOptions(json, depth, tokens_per_second)):
        typer.echo(line)
