"""The formats of transcripts. A new format is one function and one line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from asr.transcription.subtitles import to_srt, to_vtt
from asr.transcription.transcript import Character, Segment, Transcript, Word


class _Writer(Protocol):
    def __call__(self, transcript: Transcript, /) -> str: ...


@dataclass(frozen=True)
class Format:
    """How a transcript is written."""

    write: _Writer  # the content of a file for one recording
    words: bool = False  # whether it needs the times of words
    many: bool = True  # whether one file or stream can hold several recordings
    line: _Writer | None = None  # content for a stream, if it differs from a file's
    header: str = ""  # begins a file or a stream
    suffix: str = ""  # of files, if it differs from the name


def to_tsv(transcript: Transcript) -> str:
    """A line for each segment: id, start, end (seconds), confidence, text."""
    return "".join(
        f"{_field(transcript.id)}\t{s.start:.3f}\t{s.end:.3f}\t{s.confidence:.3f}\t{_field(s.text)}\n"
        for s in transcript.segments
    )


def to_ctm(transcript: Transcript) -> str:
    """NIST's time-marked words: id, channel, start, duration, word, confidence."""
    return "".join(
        f"{_token(transcript.id)} {s.channel or 1} {w.start:.3f} {w.end - w.start:.3f} {_token(w.text)} "
        f"{w.confidence:.3f}\n"
        for s in transcript.segments
        for w in s.words
    )


def to_trn(transcript: Transcript) -> str:
    """NIST's transcript: the text and the id on one line."""
    return f"{_field(transcript.text)} ({_token(transcript.id)})\n".lstrip(" ")


def to_rttm(transcript: Transcript) -> str:
    """NIST's rich transcription: where speech is.

    All speakers have the name `speech` and the channel 1. Words with less than 0.5 s between them form one
    interval. Without words, each segment is an interval.
    """
    stretches: list[list[float]] = []
    for start, end in sorted((each.start, each.end) for each in transcript.words or transcript.segments):
        if stretches and start - stretches[-1][1] < 0.5:
            stretches[-1][1] = max(end, stretches[-1][1])
        else:
            stretches.append([start, end])
    return "".join(
        f"SPEAKER {_token(transcript.id)} 1 {a:.3f} {b - a:.3f} <NA> <NA> speech <NA> <NA>\n"
        for a, b in stretches
    )


def to_textgrid(transcript: Transcript) -> str:
    """Praat's TextGrid with the tiers segments, words and characters.

    If several channels have text, each channel gets its own three tiers, with its number in their names.
    """
    parts: dict[str, Iterable[Segment | Word | Character]] = {}
    channels = transcript.by_channel() or {None: ()}
    for channel, segments in channels.items():
        name = f" {channel}" if len(channels) > 1 else ""
        words = [word for segment in segments for word in segment.words]
        parts[f"segments{name}"] = segments
        parts[f"words{name}"] = words
        parts[f"characters{name}"] = [character for word in words for character in word.characters]
    spans = {name: [(e.start, e.end, e.text) for e in entries] for name, entries in parts.items()}
    end = max([transcript.duration, *(stop for tier in spans.values() for _, stop, _ in tier)])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end:.3f}", "tiers? <exists>", f"size = {len(spans)}", "item []:"]
    for number, (name, entries) in enumerate(spans.items(), 1):
        tier = list(_tiled(entries, end))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {end:.3f}", f"        intervals: size = {len(tier)}"]
        for i, (start, stop, text) in enumerate(tier, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {start:.3f}"]
            lines += [f"            xmax = {stop:.3f}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _tiled(entries: Iterable[tuple[float, float, str]], end: float) -> Iterable[tuple[float, float, str]]:
    """Intervals for a tier: empty intervals fill the gaps, and overlaps belong to the earlier interval."""
    at = 0.0
    for start, stop, text in entries:
        start, stop = max(at, start), max(at, stop)
        if round(stop, 3) <= round(start, 3):
            continue
        if round(start, 3) > round(at, 3):
            yield at, start, ""
        yield start, stop, text
        at = stop
    if round(end, 3) > round(at, 3) or at == 0:
        yield at, end, ""


def _token(text: str) -> str:
    """The text as one field between spaces."""
    return "_".join(_field(text).split()) or "_"


def _field(text: str) -> str:
    """The text on one line, without tabs.

    The bytes of a path that is not UTF-8 are lone surrogates here. They are written as in JSON: \\udce9.
    """
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


FORMATS: dict[str, Format] = {
    "txt": Format(lambda t: t.text + "\n"),
    "json": Format(lambda t: t.to_json(indent=2) + "\n", line=lambda t: t.to_json() + "\n"),
    "srt": Format(to_srt, words=True, many=False),
    "vtt": Format(to_vtt, words=True, many=False),
    "tsv": Format(to_tsv, header="id\tstart\tend\tconfidence\ttext\n"),
    "ctm": Format(to_ctm, words=True),
    "trn": Format(to_trn),
    "textgrid": Format(to_textgrid, words=True, many=False, suffix="TextGrid"),
    "rttm": Format(to_rttm),
}
"""Name of a format -> how it is written."""

HIGHLIGHTED: dict[str, Callable[[Transcript], str]] = {
    "srt": lambda transcript: to_srt(transcript, highlight=True),
    "vtt": lambda transcript: to_vtt(transcript, highlight=True),
}
"""Subtitles in which the spoken word is marked."""
