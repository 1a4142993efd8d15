"""One experiment is one file: why, data, command, minutes, figures."""
