"""A process full of clients that is to be killed: `python doomed.py PORT`, in which nothing is ever closed.

Reads one JSON list from stdin, `[greeting, frames]` in hex for each client: what opens its session, and what it then
sends over and over. Prints a line when all of them have sessions. Has no imports but the standard library's, so that
it starts at once.
"""

import json
import selectors
import socket
import sys


def main() -> None:
    clients = json.load(sys.stdin)
    selector = selectors.DefaultSelector()
    for greeting, frames in clients:
        sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        sock.sendall(bytes.fromhex(greeting))
        answer = b""
        # HANDSHAKE_OK, in a frame of 118 bytes, is what comes behind the HTTP response; a refusal would end it.
        while len(answer.partition(b"\r\n\r\n")[2]) < 118:
            data = sock.recv(65536)
            if not data:
                sys.exit("refused")
            answer += data
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, bytes.fromhex(frames))
    print("ready", flush=True)
    sent = dict.fromkeys(selector.get_map(), 0)
    while True:
        for key, events in selector.select():
            if events & selectors.EVENT_READ:
                key.fileobj.recv(65536)  # type: ignore[union-attr]
            if events & selectors.EVENT_WRITE:
                rest = key.data[sent[key.fd] % len(key.data) :]
                sent[key.fd] += key.fileobj.send(rest)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
