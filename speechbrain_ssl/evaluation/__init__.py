"""Embeddings, scores, error rates and pictures."""
