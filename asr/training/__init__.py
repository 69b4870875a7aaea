"""Training: the loop, its losses, schedules, checkpoints and what it shows."""
