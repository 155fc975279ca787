"""What a bridge says on stderr: to a person, or with JSON to a program. Never what peers wrote."""

from peers.chat.output import complain


class Report:
    """Says things, one line each.

    Args:
        json: as objects.
        quiet: nothing but what went wrong.
    """

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self._json = json
        self._quiet = quiet

    def trouble(self, text: str) -> None:
        """Say what went wrong."""
        complain(text, "warning", json=self._json)

    def note(self, text: str) -> None:
        """Say what happens."""
        if not self._quiet:
            complain(text, "note", json=self._json)
