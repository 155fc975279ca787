"""``blindrelay-chat``: conversations for people, scripts and agents (docs/chat.md)."""
