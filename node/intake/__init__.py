"""The front door: who may come in, what they may bring, and when it counts as received."""
