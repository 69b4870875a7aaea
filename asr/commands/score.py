"""`asr score`: hypotheses against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["trn", "kaldi", "tsv", "csv", "jsonl", "lines", "folder", "ctm", "stm"]


def score(
    ref: Annotated[
        Path,
        typer.Argument(
            metavar="REF",
            help="References: trn, Kaldi text, TSV or CSV with columns id and text, JSON lines (manifests, "
            "transcripts, NeMo), lines without ids, a folder of .txt, or stm; .gz too; - is standard input.",
        ),
    ],
    hyp: Annotated[
        Path,
        typer.Argument(metavar="HYP", help="Hypotheses in one of these formats with the ids of REF, or ctm."),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="HYP2", help="A second system: show the difference, its interval and significance tests."
        ),
    ] = None,
    unit: Annotated[
        Literal["auto", "words", "chars", "mixed"],
        typer.Option(help="Unit of the rate; auto: characters for Chinese, Japanese, Thai, else words."),
    ] = "auto",
    normalize: Annotated[
        Literal["none", "case", "basic", "english"],
        typer.Option(
            help="Differences to ignore. basic: case, punctuation, Unicode form; english: "
            "numbers and spelling too."
        ),
    ] = "none",
    map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replace words of both sides: `old => new` on each line."),
    ] = None,
    drop: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Remove words of both sides (fillers): one on each line."),
    ] = None,
    costs: Annotated[
        Literal["unit", "nist"],
        typer.Option(help="Alignment costs; nist: sclite's 4/3/3, alternatives and optional words."),
    ] = "unit",
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Break down by length, speaker or any key of REF; repeatable."),
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="95% bootstrap interval of the error rate.")
    ] = False,
    block: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="Unit of the bootstrap: utterance, speaker or any key of REF.",
            show_default="auto: speaker if REF names at least two",
        ),
    ] = "auto",
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with every utterance and plots."),
    ] = None,
    nist: Annotated[
        Literal["sys", "raw", "pra"] | None, typer.Option(help="Print a report as sclite does.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with all utterances.")
    ] = False,
    worst: Annotated[
        int | None,
        typer.Option(min=0, show_default="5", help="How many utterances to show with their errors."),
    ] = None,
    fail_missing: Annotated[
        bool, typer.Option("--fail-missing", help="Exit with status 1 if a reference has no hypothesis.")
    ] = False,
    ref_format: Annotated[
        Format | None, typer.Option(help="Format of REF, if it cannot be detected; lines: no ids.")
    ] = None,
    hyp_format: Annotated[Format | None, typer.Option(help="Format of HYP and HYP2.")] = None,
) -> None:
    """Print word, character and sentence error rates of HYP against REF, matched by utterance id.

    Texts are compared as they are, without any normalization, unless --normalize names one. A missing
    hypothesis counts as empty. Words of a ctm go to the segments of an stm by their times.
    """
    from asr.errors import AsrError
    from asr.scoring.run import Options, run

    report = run(
        ref,
        hyp,
        Options(
            against=against,
            ref_format=ref_format,
            hyp_format=hyp_format,
            unit=unit,
            normalize=normalize,
            map=map,
            drop=drop,
            costs=costs,
            by=tuple(by or ()),
            intervals=intervals,
            block=block,
            html=html,
            nist=nist,
            json=as_json,
            worst=worst,
            fail_missing=fail_missing,
        ),
    )
    for warning in report.warnings:
        typer.echo(f"asr: warning: {warning}", err=True)
    typer.echo(report.text)
    if report.failure:
        raise AsrError(report.failure)
