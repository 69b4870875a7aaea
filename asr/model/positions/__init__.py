"""Positions of states: one file per kind. `asr.model.positions.interface` has what they share."""
