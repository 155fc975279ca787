"""The relay: it forwards sealed frames between connected sockets and answers only frames addressed to the server."""

from typing import Final

__version__: Final = "0.1.0"
