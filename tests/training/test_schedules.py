"""Learning rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.config import OptimConfig
from asr.training.schedules import expected_steps, learning_rate
from asr.training.settings import LoopConfig


def test_inverse_sqrt_is_the_schedule_of_the_2017_paper():
    d_model, warmup = 512, 4000
    config = OptimConfig(lr=(d_model * warmup) ** -0.5, schedule="inverse_sqrt", warmup_steps=warmup)
    for step in (1, 10, 3999, 4000, 4001, 100000):
        paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert learning_rate(step - 1, 10**6, config) == pytest.approx(paper)


def test_cosine_is_half_the_peak_half_way_and_zero_at_the_end():
    config = OptimConfig(lr=1.0, schedule="cosine", warmup_steps=100)
    assert learning_rate(99, 1100, config) == 1.0
    assert learning_rate(599, 1100, config) == pytest.approx(0.5)
    assert learning_rate(1099, 1100, config) == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "constant"])
def test_the_last_steps_fall_linearly_to_zero_and_the_others_do_not_change(schedule):
    plain = OptimConfig(lr=1.0, schedule=schedule, warmup_steps=10)
    config = plain.model_copy(update={"decay_steps": 20})
    for step in range(80):
        assert learning_rate(step, 100, config) == learning_rate(step, 100, plain)
    for step in range(80, 100):
        expected = learning_rate(step, 100, plain) * (100 - step) / 21
        assert learning_rate(step, 100, config) == pytest.approx(expected)
    assert learning_rate(100, 100, config) == 0.0


@given(
    st.sampled_from(["inverse_sqrt", "cosine", "constant"]),
    st.integers(0, 50),
    st.integers(1, 500),
    st.integers(0, 600),
    st.integers(0, 100),
)
def test_every_schedule_stays_between_zero_and_its_peak(schedule, warmup, total, step, decay):
    config = OptimConfig(lr=0.5, schedule=schedule, warmup_steps=warmup, decay_steps=decay)
    rate = learning_rate(step, total, config)
    assert 0.0 <= rate <= 0.5
    if 0 < step < warmup and not decay:
        assert rate > learning_rate(step - 1, total, config)


def test_with_a_time_limit_the_schedule_ends_when_the_time_is_over():
    """Of 2 minutes at half a second for each step, 240 steps are expected, and never more than `steps`."""
    config = LoopConfig(steps=1000, max_minutes=2.0)
    assert [expected_steps(step, 0.5 * step, config) for step in (1, 60, 239)] == [240, 240, 240]
    assert expected_steps(0, 0.0, config) == 1000 and expected_steps(600, 6.0, config) == 1000
    assert expected_steps(300, 150.0, config) == 301  # the time is over: this step is the last one
    assert expected_steps(60, 30.0, LoopConfig(steps=1000)) == 1000
    cosine = OptimConfig(lr=1.0, schedule="cosine", warmup_steps=10)
    assert learning_rate(239, expected_steps(239, 119.5, config), cosine) < 0.001
