"""Self-supervised and contrastive speaker representation learning for SpeechBrain."""

__version__ = "0.1.0"
