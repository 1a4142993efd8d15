"""The same service over several processes and hosts: a Ray Serve application behind Ray's gRPC proxy."""
