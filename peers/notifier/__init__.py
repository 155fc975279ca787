"""The notifier: a peer of the relay that turns its WAKE and PUSH_REGISTER frames into pushes (PROTOCOL.md §7.9, §7.10)."""
