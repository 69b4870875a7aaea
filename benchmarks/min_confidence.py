"""What `min_confidence` costs and saves: errors in speech, and words written where nobody speaks English.

    python benchmarks/min_confidence.py english --speech dev-callie.jsonl dev-so762.jsonl \
        --other dev-cv60.jsonl --noise CORPORA/noise [--decoding default|greedy|best]

Each recording is decoded once, and its segments are then judged with several limits. `--speech` are manifests
with texts: their WER in %. `--other` are manifests of speech in other languages: the number of words written.
Of the sounds of benchmarks/voice_activity.py, those that give words are shown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import fmean

import soundfile
import voice_activity

from asr import DecodingOptions, best_options, default_options
from asr.datasets.manifest import read_manifest
from asr.errors import AsrError
from asr.scoring import score
from asr.transcription.inputs import find_inputs
from asr.transcription.recognizer import Recognizer
from asr.transcription.transcript import Transcript

LIMITS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a model folder with a calibration")
    parser.add_argument("--speech", type=Path, nargs="+", default=[])
    parser.add_argument("--other", type=Path, nargs="+", default=[])
    parser.add_argument("--noise", type=Path, help="a folder of recordings of sounds")
    parser.add_argument("--seconds", type=int, default=120, help="of each sound")
    parser.add_argument("--decoding", choices=["default", "greedy", "best"], default="default")
    args = parser.parse_args()
    options = DecodingOptions(decoder="greedy")
    if args.decoding != "greedy":
        options = (best_options if args.decoding == "best" else default_options)(args.model)
    recognizer = Recognizer(args.model, "cpu", options=options, min_confidence=0)
    print(f"{'min_confidence':30}", *(f"{limit:6.2f}" for limit in LIMITS))
    for path in args.speech:
        transcripts = transcribed(recognizer, path)
        texts = [utterance.text or "" for utterance in read_manifest(path)]
        errors = (score(texts, [kept(each, limit) for each in transcripts]).wer for limit in LIMITS)
        print(f"{'WER, ' + path.stem:30}", *(f"{100 * wer:6.2f}" for wer in errors), flush=True)
    for path in args.other:
        print(f"{'words, ' + path.stem:30}", *counts(transcribed(recognizer, path)), flush=True)
    if args.noise is None:
        return
    voice_activity.SOUND_SECONDS = args.seconds
    with tempfile.TemporaryDirectory() as folder:
        for name, samples in voice_activity.all_sounds(args.noise).items():
            file = Path(folder) / "sound.wav"
            soundfile.write(file, samples, voice_activity.RATE)
            transcripts = transcribed(recognizer, file)
            if transcripts[0].text:
                print(f"{'words, ' + name:30}", *counts(transcripts), flush=True)


def transcribed(recognizer: Recognizer, path: Path) -> list[Transcript]:
    """The transcripts of a file, or of the recordings of a manifest."""
    inputs, problems = find_inputs([str(path)])
    if problems:
        raise problems[0]
    return recognizer.transcribe(inputs)


def kept(transcript: Transcript, limit: float) -> str:
    """The text of the segments that are at least as probable as the limit."""
    return " ".join(
        segment.text
        for segment in transcript.segments
        if not segment.words or fmean(word.confidence for word in segment.words) >= limit
    )


def counts(transcripts: list[Transcript]) -> list[str]:
    """The number of words with each limit."""
    return [f"{sum(len(kept(each, limit).split()) for each in transcripts):6}" for limit in LIMITS]


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"error: {error}")
