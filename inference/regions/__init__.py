"""Places in memory for tensors too big for a message: leased ones of the server, registered ones of clients."""
