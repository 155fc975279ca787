"""What is said: frames, masks, commands, handshakes and sessions, for both roles and without any I/O.

No event loop, no sockets, no clock, and no randomness but what is passed in. Client and server share this one codec.
"""
