"""Models. Nothing in here knows about files, audio or text: features in, log-probabilities out."""
