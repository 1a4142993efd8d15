"""Somebody else's network file and a recipe become a model bundle; the file is only ever opened in a confined child."""
