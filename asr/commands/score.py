"""`asr score`: hypotheses against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["trn", "kaldi", "tsv", "csv", "jsonl", "folder", "ctm", "stm"]


def score(
    ref: Annotated[
        Path,
        typer.Argument(
            metavar="REF",
            help="References: trn, Kaldi text, TSV or CSV with columns id and text, JSON lines (manifests, "
            "transcripts, NeMo), a folder of .txt, or stm.",
        ),
    ],
    hyp: Annotated[
        Path,
        typer.Argument(metavar="HYP", help="Hypotheses in any of these, with the ids of REF, or ctm."),
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="HYP2", help="A second system: difference, its interval, significance tests."),
    ] = None,
    unit: Annotated[
        Literal["auto", "words", "chars", "mixed"],
        typer.Option(help="What is counted; auto: characters for Chinese, Japanese, Thai, else words."),
    ] = "auto",
    normalise: Annotated[
        Literal["none", "case", "basic", "english"],
        typer.Option(help="basic: case, punctuation, Unicode form; english: numbers and spelling too."),
    ] = "none",
    costs: Annotated[
        Literal["unit", "nist"],
        typer.Option(help="Alignment costs; nist: sclite's 4/3/3, alternatives and optional words."),
    ] = "unit",
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Break down by length, speaker or any key of REF; repeatable."),
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="95% bootstrap interval, over speakers where REF names them.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with every utterance and plots.")
    ] = None,
    nist: Annotated[
        Literal["sys", "raw", "pra"] | None, typer.Option(help="Print a report as sclite does.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, utterances too.")] = False,
    worst: Annotated[
        int | None,
        typer.Option(min=0, show_default="5", help="How many utterances to show with their errors."),
    ] = None,
    ref_format: Annotated[
        Format | None, typer.Option(help="Format of REF, where content and ending do not tell.")
    ] = None,
    hyp_format: Annotated[Format | None, typer.Option(help="Format of HYP and HYP2.")] = None,
) -> None:
    """Print word, character and sentence error rates of HYP against REF, matched by utterance id.

    Texts are compared as they are, without any normalisation, unless --normalise names one. A missing
    hypothesis counts as empty. Words of a ctm go to the segments of an stm by their times.
    """
    from asr.scoring.run import Options, run

    report = run(
        ref,
        hyp,
        Options(
            against=against,
            ref_format=ref_format,
            hyp_format=hyp_format,
            unit=unit,
            normalise=normalise,
            costs=costs,
            by=tuple(by or ()),
            intervals=intervals,
            html=html,
            nist=nist,
            json=as_json,
            worst=worst,
        ),
    )
    for warning in report.warnings:
        typer.echo(f"asr: warning: {warning}", err=True)
    typer.echo(report.text)
