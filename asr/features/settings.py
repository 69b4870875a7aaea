"""Configuration sections about features, besides those of each kind."""

from __future__ import annotations

from pydantic import Field, field_validator

from asr.section import Fraction, Section


class SpecAugmentConfig(Section):
    """SpecAugment (Park et al. 2019): masks on the normalized features."""

    frequency_masks: int = Field(2, ge=0, description="number of masks over mel bins")
    frequency_width: int = Field(27, ge=0, description="widest frequency mask, in mel bins")
    time_masks: int = Field(5, ge=0, description="number of masks over time")
    time_width: Fraction = Field(0.05, description="widest time mask, as a share of the utterance")


class VocalTractConfig(Section):
    """Vocal tract length perturbation (Jaitly and Hinton 2013): the frequency axis is warped."""

    factors: tuple[float, float] = Field((0.85, 1.18), description="lowest and highest factor of frequencies")
    probability: Fraction = Field(0.75, description="share of the examples that are warped")

    @field_validator("factors")
    @classmethod
    def _sane_factors(cls, factors: tuple[float, float]) -> tuple[float, float]:
        if not 0.5 <= factors[0] <= factors[1] <= 2.0:
            raise ValueError("factors must be [low, high], the lower one first, between 0.5 and 2.0")
        return factors
