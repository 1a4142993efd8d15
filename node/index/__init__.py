"""The index: what is here, what was decided, what was delivered. Rebuilt from the files where they hold the truth."""
