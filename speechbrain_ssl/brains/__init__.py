"""SpeechBrain Brains: one skeleton and what differs per method."""
