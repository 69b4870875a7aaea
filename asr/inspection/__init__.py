"""Shows what a model does with one recording: numbers (`gather`), a page and figures that draw them."""
