"""One file, one change of the schema; never edited once released."""
