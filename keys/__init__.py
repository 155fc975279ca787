"""Who you are: primitives, identities, packets, invites and key files. Imports nothing else of this project."""
