"""What the keys do."""

from typing import Final

from textual.content import Content

_KEYS: Final = (
    ("Anywhere", ""),
    ("Alt+↑ Alt+↓", "contact above, below"),
    ("Ctrl+K", "go to a contact by name"),
    ("Ctrl+P", "all commands"),
    ("Ctrl+F", "search"),
    ("Ctrl+N", "add a contact"),
    ("Ctrl+O", "send a file"),
    ("F2", "list of contacts"),
    ("F3", "my invite"),
    ("F4", "verify this contact"),
    ("Tab", "contacts, messages, composer"),
    ("Ctrl+Q", "quit; what is unsent stays and goes out later"),
    ("In the composer", ""),
    ("Enter", "send"),
    ("Ctrl+J", "new line; also Shift+Enter, Alt+Enter"),
    ("↑", "when empty: edit my last message"),
    ("PgUp PgDn", "scroll the messages"),
    ("Esc", "to the messages; while editing: leave it as it was"),
    ("In the messages", ""),
    ("↑ ↓", "select a message; a click does too"),
    ("Enter", "what can be done with it; a second click does too"),
    ("c e d", "copy, edit, delete"),
    ("a s x", "file: accept, save, cancel or refuse"),
    ("End", "newest"),
    ("Esc", "to the composer"),
    ("Marks", ""),
    ("· ↓ ✓ ✓✓", "to be sent, left in a mailbox, sent, delivered (and read)"),
    ("● ○ ⊘", "online, not online, blocked"),
    ("◆ ◇ ?", "verified; keys from an invite; keys from the relay, so nobody vouches for them"),
)
_WIDTH: Final = 14


def _help() -> Content:
    lines: list[Content] = []
    for keys, text in _KEYS:
        if not text:
            lines += (
                [Content(""), Content.styled(keys, "bold underline")]
                if lines
                else [Content.styled(keys, "bold underline")]
            )
        else:
            lines.append(Content.assemble((f"{keys:<{_WIDTH}}", "bold"), text))
    return Content("\n").join(lines)


HELP: Final = _help()
