"""Networks, written with keras alone so that any backend can train them."""
