"""Many relays that are one to their clients: what goes between them, over NATS. Loaded only where it is asked for."""
