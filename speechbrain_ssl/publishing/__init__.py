"""Model folders that stock SpeechBrain loads, and their way to the Hub."""
