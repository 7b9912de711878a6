"""Training objectives; each is a module called with tensors that returns a scalar."""
