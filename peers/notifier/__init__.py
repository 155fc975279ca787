"""The notifier: a peer of the relay that turns WAKE and PUSH_REGISTER into pushes (PROTOCOL.md §7.9, §7.10)."""
