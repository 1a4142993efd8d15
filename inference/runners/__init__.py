"""How a loaded model answers: whole, in slabs, or in tiles mixed with those of other requests."""
