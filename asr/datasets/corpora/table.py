"""Every corpus and every layout that `asr prepare` reads, in one table.

The command's help, docs/corpora.md and messages are made from it. A new corpus is one file beside this one
and one entry here. The import is fast, because a reader is imported when its corpus is prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

_OPENSLR = "https://www.openslr.org/resources"


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack."""

    url: str
    sha256: str = ""  # empty: no checksum is known
    inner: str = ""  # pattern of archives inside it that are unpacked too
    part: bool = False  # a part of the other archives, downloaded only when its name is given


@dataclass(frozen=True)
class CorpusInfo:
    """What is known about a corpus, or about a layout (which has no `license`).

    `archives` has an archive for each subset, or one for the key "" that has all of `splits`, or one for the
    key "*" whose address has `{subset}` in it. Without any, `unavailable` says how to get the corpus.
    """

    name: str
    title: str
    reader: str  # "module:function", the module relative to asr.datasets.corpora
    hours: str = ""  # as its makers state them
    languages: str = ""
    license: str = ""
    site: str = ""
    subsets: str = "splits"  # what --subset selects
    splits: tuple[str, ...] = ()  # of a corpus with one archive, so that a wrong name shows before a download
    archives: dict[str, Archive] = field(default_factory=dict)
    unavailable: str = ""

    def read(self) -> Callable[..., Any]:
        """The reader: (source, bad, subsets) -> the utterances of each split."""
        module, _, name = self.reader.partition(":")
        reader: Callable[..., Any] = getattr(import_module(f"asr.datasets.corpora.{module}"), name)
        return reader


_LIBRISPEECH = {
    "dev-clean": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    "train-clean-100": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
}
_TWO, _THREE = ("train", "test"), ("train", "dev", "test")
_MINI = ("train-clean-5", "dev-clean-2")
_MLS = ("dutch", "english", "french", "german", "italian", "polish", "portuguese", "spanish")

_ENTRIES = (
    CorpusInfo("folder", "audio files, each beside a .txt of the same name", "folder:read_folder"),
    CorpusInfo("tsv", "TSV or CSV with columns path and text or sentence", "tsv:read_tsv"),
    CorpusInfo("kaldi", "Kaldi data directories: wav.scp, text, perhaps segments", "kaldi:read_kaldi"),
    CorpusInfo("lhotse", "a Lhotse cut set, or a folder of manifests", "lhotse:read_lhotse"),
    CorpusInfo("webdataset", "tar files of recordings with .txt or .json", "webdataset:read_webdataset"),
    CorpusInfo("manifest", "JSON lines, NeMo's too; a key `split` separates them", "splits:read_splits"),
    CorpusInfo(
        "librispeech",
        "LibriSpeech and mini LibriSpeech",
        "librispeech:read_librispeech",
        "982",
        "English",
        "CC BY 4.0",
        "https://www.openslr.org/12",
        subsets=" ".join((*_LIBRISPEECH, *_MINI)),
        archives={name: Archive(f"{_OPENSLR}/12/{name}.tar.gz", sum) for name, sum in _LIBRISPEECH.items()}
        | {name: Archive(f"{_OPENSLR}/31/{name}.tar.gz", part=True) for name in _MINI},
    ),
    CorpusInfo(
        "aishell",
        "AISHELL-1",
        "aishell:read_aishell",
        "178",
        "Mandarin",
        "Apache-2.0",
        "https://www.openslr.org/33",
        splits=_THREE,
        archives={"": Archive(f"{_OPENSLR}/33/data_aishell.tgz", inner="data_aishell/wav/*.tar.gz")},
    ),
    CorpusInfo(
        "common_voice",
        "Common Voice: one language's folder, or the folder above",
        "common_voice:read_common_voice",
        "differs by language and release",
        "over 100",
        "CC0",
        "https://commonvoice.mozilla.org/datasets",
        subsets="splits or languages",
        unavailable="its makers ask for an address first: download at https://commonvoice.mozilla.org/datasets",
    ),
    CorpusInfo(
        "tedlium3",
        "TED-LIUM 3 (legacy splits)",
        "tedlium:read_tedlium",
        "452",
        "English",
        "CC BY-NC-ND 3.0",
        "https://www.openslr.org/51",
        splits=_THREE,
        archives={
            "": Archive(
                f"{_OPENSLR}/51/TEDLIUM_release-3.tgz",
                "ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
            )
        },
    ),
    CorpusInfo(
        "mls",
        "Multilingual LibriSpeech, flac or opus",
        "mls:read_mls",
        "50,500 (44,500 of them English)",
        "8",
        "CC BY 4.0",
        "https://www.openslr.org/94",
        subsets="splits or languages: " + " ".join(_MLS),
        archives={name: Archive(f"https://dl.fbaipublicfiles.com/mls/mls_{name}.tar.gz") for name in _MLS},
    ),
    CorpusInfo(
        "voxpopuli",
        "VoxPopuli, transcribed part, as its get_asr_data writes it",
        "voxpopuli:read_voxpopuli",
        "1,800",
        "16",
        "CC0",
        "https://github.com/facebookresearch/voxpopuli",
        subsets="splits or languages",
        unavailable=(
            "its own scripts cut the sessions: run download_audios and get_asr_data of "
            "https://github.com/facebookresearch/voxpopuli"
        ),
    ),
    CorpusInfo(
        "fleurs",
        "FLEURS",
        "fleurs:read_fleurs",
        "about 12 for each language",
        "102",
        "CC BY 4.0",
        "https://huggingface.co/datasets/google/fleurs",
        subsets="splits or languages, such as de_de",
        archives={
            "*": Archive("https://storage.googleapis.com/xtreme_translations/FLEURS102/{subset}.tar.gz")
        },
    ),
    CorpusInfo(
        "ljspeech",
        "LJSpeech 1.1; split by chapter",
        "ljspeech:read_ljspeech",
        "24",
        "English",
        "public domain",
        "https://keithito.com/LJ-Speech-Dataset/",
        splits=_THREE,
        archives={
            "": Archive(
                "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
                "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            )
        },
    ),
    CorpusInfo(
        "an4",
        "AN4 (CMU Census), NIST sphere",
        "an4:read_an4",
        "0.9",
        "English",
        "free, without a license's name",
        "http://www.speech.cs.cmu.edu/databases/an4/",
        splits=_TWO,
        archives={"": Archive("http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz")},
    ),
    CorpusInfo(
        "speechocean762",
        "speechocean762: read English by Mandarin speakers",
        "speechocean762:read_speechocean762",
        "5.6",
        "English",
        "CC BY 4.0",
        "https://www.openslr.org/101",
        splits=_TWO,
        archives={"": Archive(f"{_OPENSLR}/101/speechocean762.tar.gz")},
    ),
    CorpusInfo(
        "fsdd",
        "Free Spoken Digit Dataset; strings of its digits are added",
        "fsdd:read_fsdd",
        "0.4",
        "English",
        "CC BY-SA 4.0",
        "https://github.com/Jakobovski/free-spoken-digit-dataset",
        splits=_THREE,
        archives={
            "": Archive(
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.tar.gz"
            )
        },
    ),
    CorpusInfo(
        "yesno",
        "yesno: eight Hebrew words a recording",
        "yesno:read_yesno",
        "0.1",
        "Hebrew",
        "CC BY-SA 3.0 US",
        "https://www.openslr.org/1",
        splits=_TWO,
        archives={
            "": Archive(
                f"{_OPENSLR}/1/waves_yesno.tar.gz",
                "c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
            )
        },
    ),
)  # fmt: skip
CORPORA = {entry.name: entry for entry in _ENTRIES}


def help_lines() -> str:
    """A line for each layout and each corpus: its name, and what it is."""
    width = max(map(len, CORPORA))
    return "\n".join(f"{entry.name:{width}}  {entry.title}" for entry in CORPORA.values())


def table_page() -> str:
    """The table of docs/corpora.md, in Markdown."""
    lines = ["| corpus | command | hours | language | license |", "|---|---|---|---|---|"]
    for entry in CORPORA.values():
        if entry.license:
            command = f"`asr prepare {entry.name} ROOT OUT{' --download' if entry.archives else ''}`"
            fields = f"[{entry.title}]({entry.site})", command, entry.hours, entry.languages, entry.license
            lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines)
