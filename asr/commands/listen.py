"""`asr listen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def listen(
    source: Annotated[
        str | None,
        typer.Argument(
            help="- reads samples (16 bits, one channel) from stdin.", show_default="the microphone"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder, a model that ships (english, digits), or a name on Hugging Face's hub, "
            "such as openai/whisper-small.",
            show_default="english",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    rate: Annotated[
        int, typer.Option(help="Sample rate of the microphone or of stdin, in Hz.", min=1000)
    ] = 16000,
    microphone: Annotated[
        str | None,
        typer.Option(help="Name of the microphone, or a part of it.", show_default="the system's"),
    ] = None,
    times: Annotated[bool, typer.Option("--times", help="Print start and end of each segment.")] = False,
) -> None:
    """Print text while somebody speaks, until Ctrl-C or the end of stdin.

    A line ends after a second without speech. In a terminal it grows before that.
    """
    from asr.errors import AsrError
    from asr.transcription import listening

    if source not in (None, "-"):
        raise AsrError(
            f"{source}: asr listen reads no files; use asr transcribe, or give - to read samples from stdin"
        )
    if source == "-" and microphone is not None:
        raise AsrError(
            "--microphone cannot be used with -, which reads samples from stdin; omit one of the two"
        )
    listening.listen(model, device, source == "-", rate, microphone, times)
