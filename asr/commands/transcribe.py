"""`asr transcribe`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What a transcript can be written as; asr.transcription.transcript has a writer for each."""

    txt = "txt"
    json = "json"


class Decoder(StrEnum):
    """How texts are found; asr.decoding.options says what each can be told."""

    greedy = "greedy"
    beam = "beam"
    ctc = "ctc"
    rescoring = "rescoring"


def transcribe(
    audio: Annotated[list[str], typer.Argument(help="Files, folders, globs, or a manifest (.jsonl).")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder; the model that ships if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    batch_seconds: Annotated[float, typer.Option(min=1.0, help="Audio in one batch, in seconds.")] = 120.0,
    decoder: Annotated[
        Decoder | None,
        typer.Option(
            help="beam: search; ctc: CTC alone; rescoring: CTC's hypotheses, ranked by the decoder too.",
            show_default="greedy; ctc for a model without decoder",
        ),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="Texts kept while searching.", show_default="10; ctc: 1")
    ] = None,
    n_best: Annotated[
        int | None, typer.Option(help="Texts written as JSON for each segment.", show_default="1")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Characters in one segment, at most.")] = None,
    ctc_weight: Annotated[
        float | None,
        typer.Option(show_default="0.3", help="Share of CTC in choosing characters; 0: attention alone."),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Of the decoder's best characters, how many CTC and others score at each step.",
            show_default="8, or 1.5 x beam where that is more",
        ),
    ] = None,
    draft: Annotated[
        bool | None,
        typer.Option(help="Check CTC's text in parallel; the result is that of step by step, sooner."),
    ] = None,
    length_normalization: Annotated[
        float | None,
        typer.Option(help="Divide scores by (characters + 1) to this power.", show_default="0"),
    ] = None,
    hot_words: Annotated[
        Path | None, typer.Option(help="File of words and phrases to favour, one in a line.")
    ] = None,
    hot_word_bonus: Annotated[
        float | None, typer.Option(help="Added to the score for each of their letters.", show_default="0.7")
    ] = None,
    language_model: Annotated[
        Path | None, typer.Option(help="Folder of a language model; its scores are added.")
    ] = None,
    language_model_weight: Annotated[
        float | None, typer.Option(help="What they are multiplied by.", show_default="0.3")
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
    from asr.transcription.job import Output, read_hot_words, transcribe_inputs

    options = DecodingOptions(
        decoder=decoder.value if decoder else None,
        max_tokens=max_tokens,
        ctc_weight=ctc_weight,
        candidates=candidates,
        draft=draft,
        beam=beam,
        n_best=n_best,
        length_normalization=length_normalization,
        hot_words=read_hot_words(hot_words) if hot_words else None,
        hot_word_bonus=hot_word_bonus,
        language_model=str(language_model) if language_model else None,
        language_model_weight=language_model_weight,
    )
    failed = transcribe_inputs(
        audio,
        Output(output, output_dir, format.value if format else None, skip_existing),
        model=model,
        device=device,
        batch_seconds=batch_seconds,
        options=options,
    )
    if failed:
        raise typer.Exit(1)
