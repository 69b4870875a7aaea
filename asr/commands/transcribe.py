"""`asr transcribe`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What a transcript can be written as; asr.transcript has a writer for each."""

    txt = "txt"
    json = "json"


def transcribe(
    audio: Annotated[list[str], typer.Argument(help="Files, folders, globs, or a manifest (.jsonl).")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder; the model that ships if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_seconds: Annotated[float, typer.Option(min=1.0, help="Audio in one batch, in seconds.")] = 120.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Characters in one segment, at most.")] = None,
    ctc_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            show_default="0.3",
            help="Share of CTC in choosing characters; 0: attention alone.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write one JSON line per input; `asr score` reads it.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Write one file per input, named after it.")] = None,
    format: Annotated[
        Format | None, typer.Option(help="Of the files in the output folder.", show_default="txt")
    ] = None,
    skip_existing: Annotated[bool, typer.Option(help="Leave out inputs whose output file is there.")] = False,
) -> None:
    """Print the text of recordings: one line per file, path and text, in the order given.

    Files that cannot be read are reported, the others transcribed; the exit status is then 1.
    """
    from asr.decoding import DecodingOptions
    from asr.transcribing import Output, transcribe_inputs

    failed = transcribe_inputs(
        audio,
        Output(output, output_dir, format.value if format else None, skip_existing),
        model=model,
        device=device,
        batch_seconds=batch_seconds,
        options=DecodingOptions(max_tokens=max_tokens, ctc_weight=ctc_weight),
    )
    if failed:
        raise typer.Exit(1)
