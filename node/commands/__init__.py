"""The commands of the node; a module loads the parts it needs when its command runs."""
