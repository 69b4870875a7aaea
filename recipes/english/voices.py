"""Synthetic voices: flite, festival and espeak-ng (Debian packages), each sentence in a voice of its own.

A voice is drawn from a seed: a synthesizer, its speaker, and settings that change rate, pitch, intonation and
the length of the vocal tract. The last is changed for every synthesizer by resampling its speech (`warp`);
its rate and pitch are set beforehand so that they come out as drawn.
"""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.errors import AsrError

Audio = NDArray[np.float32]  # mono, (time,)
SAMPLE_RATE = 16_000  # Hz

SHARES = {"hts": 0.36, "flite": 0.44, "diphone": 0.05, "espeak": 0.15}  # of the sentences
FLITE = {"awb": 130.0, "rms": 100.0, "slt": 180.0, "kal16": 105.0}  # speaker and mean pitch in Hz
FLITE_WEIGHTS = (3, 3, 3, 1)  # kal16 is made of diphones and is further from people
DIPHONES = ("ked", "kal")
_ACCENTS = "en-us en-us en-us en-gb en-gb-scotland en-029 en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc"
ACCENTS = _ACCENTS.split()
# Variants of espeak-ng that could be a person: no whisper, robot or croak.
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Alex Andy Annie Denis Hugo Jacky "
    "Lee Michael aunty belinda grandma grandpa linda steph victor norbert max marcelo john ed boris "
    "antonio adam caleb david edward miguel paul quincy rob robert sandro shelby travis zac"
)
VARIANTS = _VARIANTS.split()
_HTS_PARAMETERS = "hts_engine_params"


@dataclass(frozen=True)
class Voice:
    """One drawn voice."""

    synthesizer: str  # a key of SHARES
    speaker: str
    rate: float  # 1 is the synthesizer's own
    pitch: float  # factor
    warp: float  # factor of all formants: above 1 a shorter vocal tract
    settings: dict[str, float] = field(default_factory=dict)  # of HTS or flite, by their own names

    @property
    def id(self) -> str:
        """A name for the manifest, as "flite-awb-1.08-0.93-1.12" (rate, pitch, warp)."""
        return f"{self.synthesizer}-{self.speaker}-{self.rate:.2f}-{self.pitch:.2f}-{self.warp:.2f}"


def draw_voice(draw: random.Random, synthesizer: str | None = None) -> Voice:
    """A voice; of that synthesizer when one is named."""
    synthesizer = synthesizer or draw.choices(list(SHARES), list(SHARES.values()))[0]
    rate = min(1.5, max(0.65, draw.gauss(1.0, 0.17)))
    warp = draw.choice([1.0, draw.uniform(0.84, 1.22), draw.uniform(0.84, 1.22)])
    pitch = draw.uniform(0.7, 1.4) * (warp**0.5)
    settings: dict[str, float] = {}
    if synthesizer == "flite":
        speaker = draw.choices(list(FLITE), FLITE_WEIGHTS)[0]
        settings["int_f0_target_stddev"] = draw.uniform(6, 30)
    elif synthesizer == "hts":
        speaker = "slt"
        settings = {
            "-a": draw.uniform(
                0.36, 0.56
            ),  # all-pass constant: moves the formants, 0.42 is the speaker's own
            "-b": draw.uniform(0.0, 0.4),  # postfilter
            "-u": draw.uniform(0.35, 0.65),  # threshold of voicing
            "-jm": draw.uniform(0.7, 1.2),  # global variance of the spectrum
            "-jf": draw.uniform(0.5, 1.6),  # and of the pitch: flat or lively
        }
        pitch *= draw.choice([0.6, 0.8, 1.0])  # the speaker is a woman
    elif synthesizer == "diphone":
        speaker = draw.choice(DIPHONES)
    else:
        speaker = f"{draw.choice(ACCENTS)}+{draw.choice(VARIANTS)}"
    return Voice(synthesizer, speaker, rate, pitch, warp, settings)


def check_installed() -> None:
    """Raise AsrError unless the three programs and their voices are installed."""
    for program, package in (
        ("espeak-ng", "espeak-ng"),
        ("flite", "flite"),
        ("festival", "festival festvox-us-slt-hts festvox-kallpc16k festvox-kdlpc16k"),
    ):
        if shutil.which(program) is None:
            raise AsrError(f"{program}: not installed; run `apt-get install {package}`")
    listed = _run(["festival", "-b", "(print (voice.list))"]).split()
    for name in ("cmu_us_slt_arctic_hts", "ked_diphone", "kal_diphone"):
        if not any(name in word for word in listed):
            raise AsrError(
                f"festival: has no voice {name}; install festvox-us-slt-hts, -kallpc16k and -kdlpc16k"
            )


def speak_all(requests: list[tuple[str, Voice]], folder: Path) -> list[Audio | None]:
    """The speech of each (text, voice), or None where the synthesizer failed. `folder` holds temporary files.

    festival speaks all of its sentences in one process, since it takes a second to start.
    """
    paths = [folder / f"{number}.wav" for number in range(len(requests))]
    script = [_scheme(text, voice, path) for (text, voice), path in zip(requests, paths, strict=True)]
    (folder / "speak.scm").write_text("\n".join(filter(None, script)), encoding="utf-8")
    if any(script):
        subprocess.run(["festival", "-b", str(folder / "speak.scm")], capture_output=True, check=False)
    speech: list[Audio | None] = []
    for (text, voice), path in zip(requests, paths, strict=True):
        try:
            if command := _command(text, voice, path):
                _run(command)
            speech.append(_read(path, voice.warp))
        except (AsrError, OSError, soundfile.LibsndfileError):
            speech.append(None)
        path.unlink(missing_ok=True)
    return speech


def _scheme(text: str, voice: Voice, path: Path) -> str:
    """What festival evaluates for one sentence; empty for the voices of the other programs."""
    if voice.synthesizer == "hts":
        half_tones = 12 * math.log2(voice.pitch / voice.warp)
        settings = voice.settings | {"-fm": half_tones, "-r": voice.rate / voice.warp}
        pairs = " ".join(f'("{name}" {value:.3f})' for name, value in settings.items())
        # The first entry of a name counts, so ours come before the voice's.
        choose = (
            "(voice_cmu_us_slt_arctic_hts)"
            f"(set! {_HTS_PARAMETERS} (append '({pairs}) cmu_us_slt_arctic_hts::{_HTS_PARAMETERS}))"
        )
    elif voice.synthesizer == "diphone":
        stretch = voice.warp / voice.rate
        mean = 105 * voice.pitch / voice.warp
        choose = (
            f"(voice_{voice.speaker}_diphone)(Parameter.set 'Duration_Stretch {stretch:.3f})"
            f"(set! int_lr_params '((target_f0_mean {mean:.1f}) (target_f0_std 14)"
            " (model_f0_mean 170) (model_f0_std 34)))"
        )
    else:
        return ""
    return f'{choose}(utt.save.wave (SynthText "{text}") "{path}" \'riff)'


def _command(text: str, voice: Voice, path: Path) -> list[str] | None:
    if voice.synthesizer == "flite":
        stretch, mean = voice.warp / voice.rate, FLITE[voice.speaker] * voice.pitch / voice.warp
        settings = voice.settings | {"duration_stretch": stretch, "int_f0_target_mean": mean}
        options = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.3f}")]
        return ["flite", "-voice", voice.speaker, *options, "-t", text, "-o", str(path)]
    if voice.synthesizer == "espeak":
        speed = str(round(165 * voice.rate / voice.warp))  # words a minute
        pitch = str(min(99, max(0, round(50 + 60 * math.log2(voice.pitch / voice.warp)))))  # 0 to 99
        return ["espeak-ng", "-v", voice.speaker, "-s", speed, "-p", pitch, "-w", str(path), "--", text]
    return None


def _run(command: list[str]) -> str:
    """Standard output of a command. Raises AsrError with the first line of its message when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        raise AsrError(f"{command[0]}: no answer in two minutes; try the same command by hand") from None
    if done.returncode:
        message = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise AsrError(f"{command[0]}: exit status {done.returncode} ({message or 'no message'})")
    return done.stdout


def _read(path: Path, warp: float) -> Audio:
    """The file at SAMPLE_RATE; all frequencies times `warp`, and the duration divided by it."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (time, channels)
    return np.asarray(soxr.resample(audio[:, 0], rate * warp, SAMPLE_RATE), dtype=np.float32)
