"""Configuration sections about features, besides those of each kind."""

from __future__ import annotations

from pydantic import Field

from asr.section import Fraction, Section


class SpecAugmentConfig(Section):
    """SpecAugment (Park et al. 2019): masks on the normalized features."""

    frequency_masks: int = Field(2, ge=0, description="number of masks over mel bins")
    frequency_width: int = Field(27, ge=0, description="widest frequency mask, in mel bins")
    time_masks: int = Field(5, ge=0, description="number of masks over time")
    time_width: Fraction = Field(0.05, description="widest time mask, as a share of the utterance")
