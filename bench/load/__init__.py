"""The load generators: processes of their own that speak protocol v2 over raw sockets."""
