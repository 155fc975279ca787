"""The commands of ``blindrelay-chat``, each a function that Typer turns into one."""
