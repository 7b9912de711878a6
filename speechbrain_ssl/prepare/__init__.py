"""One corpus per file, one prepare function each."""
