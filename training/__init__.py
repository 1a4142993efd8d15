"""The side that makes models; the only one that may import both the node and the service."""
