"""Networks: separative encoders, attention over speaker representations."""
