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
    """The search for the best text. asr.decoding.options lists the options of each."""

    greedy = "greedy"
    beam = "beam"
    ctc = "ctc"
    rescoring = "rescoring"
    mask_predict = "mask-predict"


class Precision(StrEnum):
    """The number format of the model's computations."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"


def transcribe(
    audio: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns, a manifest (.jsonl), or - for stdin.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder, or a model that ships: digits, english.", show_default="digits"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 on a GPU that computes it natively, else float32.")
    ] = Precision.auto,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="one for each free core")
    ] = None,
    batch_seconds: Annotated[
        float | None,
        typer.Option(min=1.0, help="Audio in one batch, in seconds.", show_default="60 on a CPU, else 120"),
    ] = None,
    decoder: Annotated[
        Decoder | None,
        typer.Option(
            help="greedy; beam: search; ctc: CTC alone; rescoring: CTC's texts, ranked by the decoder too; "
            "mask-predict: CTC's text, refined in parallel by a decoder of that kind.",
            show_default="greedy; ctc without a decoder; mask-predict with one of that kind",
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Decoder passes of mask-predict.", show_default="10")
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="Texts kept in the search.", show_default="10; ctc: 1")
    ] = None,
    n_best: Annotated[
        int | None, typer.Option(help="Texts written as JSON for each segment.", show_default="1")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Most tokens in one segment.")] = None,
    ctc_weight: Annotated[
        float | None,
        typer.Option(show_default="0.3", help="Share of CTC in the choice of tokens; 0: attention alone."),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Number of the decoder's best tokens that CTC and others score at each step.",
            show_default="8, or 1.5 x beam if that is more",
        ),
    ] = None,
    draft: Annotated[
        bool | None,
        typer.Option(help="Check CTC's text in parallel. The result is the same as step by step."),
    ] = None,
    length_normalization: Annotated[
        float | None,
        typer.Option(help="Divide scores by (tokens + 1) to this power.", show_default="0"),
    ] = None,
    hot_words: Annotated[
        Path | None, typer.Option(help="File of words and phrases to favor, one on each line.")
    ] = None,
    hot_word_bonus: Annotated[
        float | None, typer.Option(help="Added to the score for each of their letters.", show_default="0.7")
    ] = None,
    language_model: Annotated[
        Path | None, typer.Option(help="Folder of a language model; its scores are added.")
    ] = None,
    language_model_weight: Annotated[
        float | None, typer.Option(help="Weight of the language model's scores.", show_default="0.3")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write one JSON line for each input as it is ready; - is stdout."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Write one file for each input, named after it.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="Of the files in the output folder.", show_default="txt")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", "--skip-existing", help="Leave out inputs whose result is there.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --output.")] = False,
) -> None:
    """Print the text of recordings: one line for each file, path and text, in the order given.

    Files that cannot be read are reported and the others are transcribed. The exit status is then 1.
    """
    from asr.decoding import DecodingOptions
    from asr.transcription.job import read_hot_words, transcribe_inputs
    from asr.transcription.output import Output

    options = DecodingOptions(
        **({"decoder": decoder.value} if decoder else {}),
        max_tokens=max_tokens,
        ctc_weight=ctc_weight,
        candidates=candidates,
        draft=draft,
        iterations=iterations,
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
        Output(output, output_dir, format.value if format else None, resume, overwrite),
        model=model,
        device=device,
        batch_seconds=batch_seconds,
        options=options,
        precision=precision.value,
        threads=threads,
    )
    if failed:
        raise typer.Exit(1)
