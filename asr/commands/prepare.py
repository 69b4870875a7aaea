"""`asr prepare`: a corpus on disk into manifests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """The layouts that can be read; asr.datasets.prepare has a reader for each."""

    folder = "folder"
    tsv = "tsv"
    kaldi = "kaldi"
    lhotse = "lhotse"
    manifest = "manifest"
    fsdd = "fsdd"


def prepare(
    kind: Annotated[Kind, typer.Argument(help="Layout of the corpus.")],
    source: Annotated[Path, typer.Argument(help="Its folder, or its TSV, manifest or cut-set file.")],
    out: Annotated[Path, typer.Argument(help="Folder for the manifests.")],
) -> None:
    """Read a corpus and write OUT/<split>.jsonl, a manifest for each split. Audio stays where it is.

    folder: audio files, each beside a .txt of the same name. tsv: columns path and text or sentence, as in
    Common Voice. kaldi: wav.scp, text, and where given utt2spk and segments. lhotse: a cut set. manifest:
    JSON lines with a key "split". fsdd: the Free Spoken Digit Dataset; strings of its digits are added.

    Utterances whose audio cannot be read are listed and left out, and the exit status is then 1.
    """
    from asr.datasets.prepare import prepare_corpus

    prepared = prepare_corpus(kind.value, source, out)
    for split, group in prepared.splits.items():
        hours = sum(utterance.duration or 0.0 for utterance in group) / 3600
        speakers = len({utterance.speaker for utterance in group if utterance.speaker is not None})
        typer.echo(f"{out / split}.jsonl: {len(group)} utterances, {hours:.2f} h, {speakers} speakers")
    for line in prepared.bad:
        typer.echo(f"left out: {line}", err=True)
    if prepared.bad:
        typer.echo(f"{len(prepared.bad)} utterances were left out; the rest is written", err=True)
        raise typer.Exit(1)
