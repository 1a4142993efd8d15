"""When a study is complete enough to run: evidence in, decision with its reason out."""
