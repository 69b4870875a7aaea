"""Training: the loop, the tasks, losses, schedules, checkpoints and messages."""
