"""Make the synthesized digits: `data/synthetic_digits` for training, `data/samples/digits` for a test.

    python recipes/fsdd/synthesize_digits.py

FSDD has isolated digits of six speakers. 53 synthetic voices add other accents, pitches and speeds, and
connected digits with coarticulation. The voices are those of espeak-ng and flite, which are Debian packages.
Every random choice comes from a generator seeded by (seed, voice). So the same versions of the synthesizers
give the same audio again, and a new voice does not change the others.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import soxr
import typer
from numpy.typing import NDArray

from asr.datasets.manifest import Utterance, write_manifest
from asr.errors import AsrError

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
Audio = NDArray[np.float32]  # mono samples, (time,)

DATA = Path(__file__).resolve().parents[2] / "data"
SAMPLE_RATE = 16_000  # of the training audio, Hz
GAP = 0.2  # seconds of silence between two utterances of a file
MARGIN = (0.03, 0.08)  # seconds before and after the speech, random for each utterance
LEVEL = (-30.0, -18.0)  # RMS of an utterance in dB relative to full scale, random for each utterance
OPUS_LEVEL = 0.96  # libsndfile's scale: 0 is 256 kbit/s, 1 is 6 kbit/s; this is 16 kbit/s
STRINGS = {"espeak-ng": 6, "flite": 20}  # connected strings for each voice
ROUNDS = {"espeak-ng": 1, "flite": 3}  # single utterances of each digit for each voice
# Short strings are more likely, so that a small file has many different strings.
STRING_LENGTHS = [2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10]


@dataclass(frozen=True)
class Voice:
    """A synthesizer and the name of one of its voices, as its command line expects it."""

    synthesizer: str  # "espeak-ng" or "flite"
    name: str

    @property
    def id(self) -> str:
        """The speaker in the manifest, as "espeak-en-us+f2"."""
        return f"{self.synthesizer.removesuffix('-ng')}-{self.name}"


# espeak-ng: an accent, alone or with a variant that changes the vocal tract. Whispers, robots and variants
# with impossible formants are not used.
ACCENTS = {
    "en-us": "m1 m3 f2 f4 antonio Gene pedro",
    "en-gb": "m2 m7 f1 f5 Alex Andrea edward",
    "en-gb-scotland": "m4 m8 f3 f2 belinda Denis john",
    "en-gb-x-rp": "m5 f4 f1 Annie david pablo steph2",
    "en-029": "m6 f5 f3 anika max paul robert",
    "en-us-nyc": "m1 m7 f2 benjamin Mike quincy steph3",
}
VOICES = [Voice("flite", name) for name in ("kal", "kal16", "awb", "rms", "slt")] + [
    Voice("espeak-ng", accent + variant)
    for accent, variants in ACCENTS.items()
    for variant in ["", *(f"+{name}" for name in variants.split())]
]


@dataclass(frozen=True)
class Sample:
    """One file of `data/samples/digits`."""

    name: str
    text: str
    voice: Voice
    sample_rate: int
    channels: int = 1
    speed: int = 155  # words per minute

    @property
    def unseen(self) -> bool:
        """Whether the training audio does not have this voice."""
        return self.voice not in VOICES


SAMPLES = [
    Sample("bus_line", "four two seven", Voice("espeak-ng", "en-gb+f5"), 22_050),
    Sample("countdown", " ".join(reversed(DIGITS)), Voice("espeak-ng", "en-us+victor"), 16_000),
    Sample("door_code", "five eight one three", Voice("flite", "kal16"), 16_000),
    Sample("flight", "seven four seven", Voice("espeak-ng", "en-us-nyc+steph3"), 44_100, channels=2),
    Sample("lottery", "one one two three five eight", Voice("espeak-ng", "en-gb-x-gbclan+Hugo"), 16_000),
    Sample("phone_number", "two zero seven nine four six zero one five eight", Voice("flite", "awb"), 8_000),
    Sample("pi", "three one four one five nine two six", Voice("flite", "slt"), 16_000),
    Sample("pin", "four zero seven two", Voice("espeak-ng", "en-gb-x-gbcwmd+grandma"), 16_000),
    Sample("year", "one nine six nine", Voice("espeak-ng", "en-gb-scotland+f3"), 8_000),
    Sample("zip_code", "nine zero two one zero", Voice("flite", "rms"), 16_000),
]


def check_installed() -> None:
    """Raise AsrError if a synthesizer or a voice is not installed."""
    for program in ("espeak-ng", "flite"):
        if shutil.which(program) is None:
            raise AsrError(f"{program}: not installed; run `apt-get install espeak-ng flite`")
    # espeak-ng reads an unknown variant with its default voice and exit status 0. So check the lists first.
    accents = run(["espeak-ng", "--voices=en"]).lower().split()
    variants = run(["espeak-ng", "--voices=variant"]).split()
    flite = run(["flite", "-lv"]).split()
    for voice in VOICES + [sample.voice for sample in SAMPLES]:
        accent, _, variant = voice.name.partition("+")
        if voice.synthesizer == "flite":
            known = voice.name in flite
        else:
            known = accent in accents and (not variant or f"!v/{variant}" in variants)
        if not known:
            raise AsrError(f"{voice.synthesizer}: has no voice {voice.name}; install another version")


def run(command: list[str]) -> str:
    """The standard output of a command. Raises AsrError with its first message when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise AsrError(f"{command[0]}: exit status {done.returncode} ({complaint or 'no message'})")
    return done.stdout


def speak(voice: Voice, text: str, speed: int, pitch: float, sample_rate: int) -> Audio:
    """Audio of `text`. `speed` is in words per minute, `pitch` is relative to the voice's own pitch."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        if voice.synthesizer == "espeak-ng":
            setting = str(round(50 * pitch))  # 0 .. 99
            run(["espeak-ng", "-v", voice.name, "-s", str(speed), "-p", setting, "-w", str(wav), text])
        else:
            stretch = f"duration_stretch={160 / speed:.3f}"
            mean = {"slt": 170, "awb": 130}.get(voice.name, 100) * pitch  # Hz; the voice rms ignores it
            options = ["--setf", stretch, "--setf", f"int_f0_target_mean={mean:.0f}"]
            run(["flite", "-voice", voice.name, *options, "-t", text, "-o", str(wav)])
        audio, rate = soundfile.read(wav, dtype="float32")
    return soxr.resample(audio, rate, sample_rate, quality="VHQ")


def trim(audio: Audio, sample_rate: int, before: float, after: float) -> Audio:
    """The speech in `audio` with `before` and `after` seconds of the synthesizer's silence, or of zeros.

    Speech is from the first to the last 5 ms whose energy is within 40 dB of the loudest. This limit keeps
    the noise of a final "t" or "s", and is above the noise of flite's recorded voices.
    """
    hop = sample_rate // 200
    frames = audio[: audio.size // hop * hop].reshape(-1, hop)  # (frames, hop)
    energy = np.sqrt((frames**2).mean(axis=1))
    speech = np.flatnonzero(energy > energy.max() * 10 ** (-40 / 20))
    lead, tail = round(before * sample_rate), round(after * sample_rate)
    first, last = speech[0] * hop, (speech[-1] + 1) * hop  # in samples
    padded = np.pad(audio, (lead, tail))
    return padded[first : last + lead + tail]


def at_level(audio: Audio, decibels: float) -> Audio:
    """`audio` scaled to an RMS in dB relative to full scale, or less if its peak would clip."""
    gain = 10 ** (decibels / 20) / np.sqrt((audio**2).mean())
    return audio * min(gain, 0.9 / np.abs(audio).max())


def punctuate(words: list[str], draw: random.Random) -> str:
    """Punctuation so that the words are read in one breath, in groups, or with a pause after each."""
    style = draw.choice(["breath", "breath", "breath", "groups", "groups", "pauses"])
    if style == "breath":
        return " ".join(words)
    size = 1 if style == "pauses" else draw.choice([2, 3, 4])
    groups = (" ".join(words[i : i + size]) for i in range(0, len(words), size))
    return ", ".join(groups)


def texts(voice: Voice, draw: random.Random) -> Iterator[list[str]]:
    """The texts of a voice: single digits, then strings. No string contains the text of a sample."""
    for _ in range(ROUNDS[voice.synthesizer]):
        yield from ([digit] for digit in DIGITS)
    made = 0
    while made < STRINGS[voice.synthesizer]:
        words = draw.choices(DIGITS, k=draw.choice(STRING_LENGTHS))
        if not any(sample.text in " ".join(words) for sample in SAMPLES):
            made += 1
            yield words


def make_voice(voice: Voice, seed: int, folder: Path) -> list[Utterance]:
    """Write `<voice>.ogg` into `folder`. Returns its utterances."""
    draw = random.Random(f"{seed} {voice.id}")
    path = folder / f"{voice.id}.ogg"
    pieces, position, utterances = [], 0, []
    gap = np.zeros(round(GAP * SAMPLE_RATE), np.float32)
    for number, words in enumerate(texts(voice, draw)):
        speed, pitch = draw.randint(120, 200), draw.uniform(0.75, 1.3)
        audio = speak(voice, punctuate(words, draw), speed, pitch, SAMPLE_RATE)
        audio = trim(audio, SAMPLE_RATE, draw.uniform(*MARGIN), draw.uniform(*MARGIN))
        audio = at_level(audio, draw.uniform(*LEVEL))
        # Whole milliseconds, so that the times in the manifest are exact.
        audio = np.pad(audio, (0, -audio.size % (SAMPLE_RATE // 1000)))
        pieces += [gap, audio]
        position += gap.size
        utterances.append(
            Utterance(
                id=f"{voice.id}-{number:03d}",
                audio=path,
                text=" ".join(words),
                duration=audio.size / SAMPLE_RATE,
                speaker=voice.id,
                lang="en",
                start=position / SAMPLE_RATE,
                extra={"synthesizer": voice.synthesizer},
            )
        )
        position += audio.size
    soundfile.write(
        path,
        np.concatenate([*pieces, gap]),
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=OPUS_LEVEL,
    )
    return utterances


def make_sample(sample: Sample, folder: Path) -> Utterance:
    """Write `<name>.wav` and `<name>.txt` into `folder`. Returns the utterance."""
    path = folder / f"{sample.name}.wav"
    audio = speak(sample.voice, sample.text, sample.speed, 1.0, sample.sample_rate)
    audio = at_level(trim(audio, sample.sample_rate, 0.15, 0.15), -20)
    if sample.channels == 2:  # a speaker on the left
        audio = np.stack([audio, 0.6 * audio], axis=1)  # (time, 2)
    soundfile.write(path, audio, sample.sample_rate, subtype="PCM_16")
    path.with_suffix(".txt").write_text(sample.text + "\n", encoding="utf-8")
    return Utterance(
        id=sample.name,
        audio=path,
        text=sample.text,
        duration=round(len(audio) / sample.sample_rate, 6),
        speaker=sample.voice.id,
        lang="en",
        extra={"synthesizer": sample.voice.synthesizer, "unseen_voice": sample.unseen},
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Where to write both sets.", show_default="data")] = DATA,
    seed: Annotated[int, typer.Option(help="Seed of speeds, pitches, levels and strings.")] = 0,
) -> None:
    """Synthesize the spoken digits of data/synthetic_digits and data/samples/digits."""
    check_installed()
    folder = data / "synthetic_digits"
    folder.mkdir(parents=True, exist_ok=True)
    finish(folder, [utterance for voice in VOICES for utterance in make_voice(voice, seed, folder)])
    folder = data / "samples" / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    finish(folder, [make_sample(sample, folder) for sample in SAMPLES])


def finish(folder: Path, utterances: list[Utterance]) -> None:
    """Write the manifest and print a summary."""
    write_manifest(folder / "manifest.jsonl", utterances)
    minutes = sum(utterance.duration or 0.0 for utterance in utterances) / 60
    voices = len({utterance.speaker for utterance in utterances})
    print(f"{folder}: {len(utterances)} utterances, {voices} voices, {minutes:.1f} minutes")


if __name__ == "__main__":
    try:
        app()
    except AsrError as error:
        sys.exit(f"synthesize_digits.py: error: {error}")
