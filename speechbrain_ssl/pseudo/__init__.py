"""Training on the labels that a model finds itself."""
