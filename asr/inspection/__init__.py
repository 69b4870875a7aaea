"""What a model does with one recording: its numbers (`gather`), a page of them, and figures."""
