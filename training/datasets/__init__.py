"""Sets of labelled images, split by patient, and synthetic ones."""
