"""Manifests, trial lists and the tensors made from them."""
