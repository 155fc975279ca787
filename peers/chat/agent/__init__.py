"""What an agent may do with a profile, how that is bounded, and written down: the parts of ``blindrelay-chat mcp``."""
