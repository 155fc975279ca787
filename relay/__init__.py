"""The relay: it forwards sealed frames between connected sockets and answers only frames addressed to the server."""
