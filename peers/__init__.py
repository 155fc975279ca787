"""Everything that connects to a relay: the client library, the chat, and the programs around them."""
