"""The terminal that the relay was started in, if it was: SIGHUP may also mean that this one was closed."""

import os


class Terminal:
    """Remembers which of standard input, output and error are a terminal."""

    def __init__(self) -> None:
        self._descriptors = [number for number in (0, 1, 2) if os.isatty(number)]

    def gone(self) -> bool:
        """Tell whether there was a terminal and it is closed; what still refers to it leads nowhere from then on.

        Without that, the next line of the log would be an error, and in the place of an orderly end.
        """
        lost = [number for number in self._descriptors if not os.isatty(number)]
        if lost:
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for number in lost:
                os.dup2(nowhere, number)
            os.close(nowhere)
        return bool(lost)
