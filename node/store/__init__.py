"""Durable files: received instances, quarantine and the outbox. Names are ours, never a peer's."""
