"""`asr data`: look at the training data, check it, and write it in shards or for other toolkits."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(
    name="data",
    help="Look at training data, check it, and write it in shards or for other toolkits.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class Layout(StrEnum):
    """The layouts that can be written; asr.datasets.export has a writer for each."""

    kaldi = "kaldi"
    lhotse = "lhotse"
    nemo = "nemo"


@data.callback()
def _group() -> None:
    """Look at training data, check it, and write it in shards or for other toolkits."""


@data.command(context_settings={"max_content_width": 100})
def preview(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that differ, such as augment.gain_db=6 data.first=100."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the page and its audio.")] = Path("preview"),
    examples: Annotated[
        int, typer.Option(min=1, help="Number of examples, taken evenly from the epoch.")
    ] = 20,
    epoch: Annotated[int, typer.Option(min=0, help="Counted from 0.")] = 0,
) -> None:
    """Write examples of the model's input. OUT/index.html plays and shows them.

    The audio has the speeds, pauses, rooms, gain and noise of the configuration. The images show the features
    with SpecAugment's masks. Recordings that cannot be read are listed. The exit status is 1 then.
    """
    from asr.config import load_config
    from asr.datasets.preview import write_examples

    count, bad = write_examples(load_config(config, tuple(overrides or ())), out, examples, epoch)
    for line in bad:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"{count} examples are in {out / 'index.html'}")
    raise typer.Exit(1 if bad else 0)


@data.command(context_settings={"max_content_width": 100})
def check(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="All splits of a corpus.")],
    model: Annotated[
        Path | None, typer.Option(help="Also list texts that this model cannot write or CTC cannot align.")
    ] = None,
    recordings: Annotated[
        bool, typer.Option("--audio/--no-audio", help="Read every recording. It takes most of the time.")
    ] = True,
    html: Annotated[Path | None, typer.Option(metavar="PAGE", help="Write a page with plots.")] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all counts and problems as JSON.")
    ] = None,
) -> None:
    """Print hours, speakers, durations and characters of manifests, and what is wrong with them.

    Problems are missing texts, ids, recordings and speakers that several manifests share, equal recordings,
    and recordings that are broken, clipped, silent or shorter than they should be. The exit status is 1 if
    there are any.
    """
    from json import dumps

    from asr.datasets.check import check_data, model_limits
    from asr.datasets.check_report import text_report, write_page
    from asr.files import atomic_write

    result = check_data(manifests, model_limits(model) if model else None, recordings)
    typer.echo(text_report(result))
    if html:
        write_page(result, html)
    if json:
        with atomic_write(json) as out:
            out.write(dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    raise typer.Exit(1 if result.problems else 0)


@data.command(context_settings={"max_content_width": 100})
def export(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder (kaldi, lhotse) or file (nemo).")],
    layout: Annotated[Layout, typer.Option("--format", help="The layout to write.")],
) -> None:
    """Write a manifest in the layout of another toolkit. Audio stays where it is; its paths become absolute.

    kaldi: wav.scp, text, utt2spk, spk2utt and segments; speakers become prefixes of the ids where the order
    of the ids is not that of the speakers. lhotse: recordings and supervisions. nemo: JSON lines. Each
    utterance needs a text and a duration.
    """
    from asr.datasets.export import export_manifest

    count = export_manifest(manifest, out, layout.value)
    typer.echo(f"{count} utterances are in {out}")


@data.command(context_settings={"max_content_width": 100})
def shard(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the shards and their manifest.")],
    size: Annotated[int, typer.Option(min=1, help="Utterances in a shard.")] = 1000,
    shuffle: Annotated[
        bool,
        typer.Option("--shuffle/--in-order", help="Whether each shard is a random sample of the corpus."),
    ] = True,
) -> None:
    """Write a manifest and its recordings to tar files, which are few and are read from front to back.

    OUT/manifest.jsonl is a manifest like others. With data.shard_pool training reads pools of shards one
    after the other. Recordings of one utterance are copied, parts of longer ones become FLAC. Shards that an
    earlier call wrote are kept. Recordings that cannot be read are listed, and the exit status is 1 then.
    """
    from asr.datasets.sharding import write_shards

    count, bad = write_shards(manifest, out, size, shuffle)
    for line in bad:
        typer.echo(f"left out: {line}", err=True)
    typer.echo(f"{count} utterances are in {out / 'manifest.jsonl'}")
    raise typer.Exit(1 if bad else 0)
