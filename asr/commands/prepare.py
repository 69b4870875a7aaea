"""`asr prepare`: a corpus on disk into manifests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from asr.datasets.corpora.table import CORPORA, help_lines

Kind = StrEnum("Kind", list(CORPORA))  # type: ignore[misc]
_SHOWN = 20  # lines about utterances that are left out; left_out.txt has all


def prepare(
    kind: Annotated[Kind, typer.Argument(metavar="NAME", help="The corpus or layout, from the list above.")],
    source: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Its folder, or its table, manifest or cut-set file.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the manifests.")],
    download: Annotated[
        bool,
        typer.Option("--download", help="Download into ROOT first; an interrupted download is continued."),
    ] = False,
    subset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this split or language; repeatable. A wrong name lists all."),
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Change the texts; with commas: numbers (to words), case, basic, english, upper.",
        ),
    ] = None,
    lang: Annotated[
        str | None, typer.Option(metavar="CODE", help="Language, such as de, if the corpus names none.")
    ] = None,
    dev: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="Share of the hours held out as dev, whole speakers at a time."),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="Share of the hours held out as test, whole speakers at a time."),
    ] = None,
) -> None:
    from asr.datasets.prepare import Options, counts, prepare_corpus

    shares = {name: share for name, share in (("test", test), ("dev", dev)) if share}
    options = Options(download, tuple(subset or ()), normalize, lang, shares)
    prepared = prepare_corpus(kind.value, source, out, options)
    for split, group in prepared.splits.items():
        found = counts(group)
        typer.echo(
            f"{out / split}.jsonl: {found['utterances']} utterances, {found['hours']:.2f} h, "
            f"{found['speakers']} speakers"
        )
    for line in prepared.notes:
        typer.echo(line, err=True)
    for line in prepared.bad[:_SHOWN]:
        typer.echo(f"left out: {line}", err=True)
    if prepared.bad:
        typer.echo(
            f"{len(prepared.bad)} were left out ({out / 'left_out.txt'} names all); the rest is written",
            err=True,
        )
        raise typer.Exit(1)


prepare.__doc__ = f"""Read a corpus and write OUT/<split>.jsonl, a manifest for each split.

    Audio stays where it is. What cannot be used is listed and left out, and the exit status is then 1.
    OUT/corpus.json records the counts and the normalization of the texts.

    \b
    Layouts and corpora:
    {help_lines().replace(chr(10), chr(10) + "    ")}
    """
