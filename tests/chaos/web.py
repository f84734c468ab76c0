"""HTTP as the clients speak it.

Invariant: what an append came to is one of three, and `UNKNOWN` whenever there is doubt: only
200 acknowledges, only 503 and a connection that was never made refuse.
"""

import http.client
import json
import socket

PORT = 8000
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
# Longer than a node takes to answer 504 by itself.
APPEND_SECONDS = 15


class Unexpected(Exception):
    """An answer that the documentation does not know for this request."""


class Client:
    """One connection to a node, made again when it broke."""

    def __init__(self, host):
        self.connection = http.client.HTTPConnection(host, PORT, timeout=APPEND_SECONDS)

    def connect(self):
        """True if the connection stands."""
        if self.connection.sock is None:
            try:
                self.connection.connect()
            except OSError:
                return False
        return True

    def interrupt(self):
        """Ends what is under way, from another thread."""
        sock = self.connection.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def append(self, topic, records):
        """What became of it, and the first and the last offset."""
        if not self.connect():
            return REFUSED, None
        try:
            self.connection.request("POST", f"/v1/logs/{topic}", b"".join(records))
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return UNKNOWN, None
        if answer.status == 200:
            told = json.loads(body)
            if told["count"] != len(records):
                raise Unexpected(f"{len(records)} records were sent, and answered: {body!r}")
            return ACKNOWLEDGED, (told["first_offset"], told["last_offset"])
        if answer.status in (503, 504):
            return (REFUSED if answer.status == 503 else UNKNOWN), None
        raise Unexpected(f"{answer.status} to an append: {body!r}")


def get(host, path, seconds=5):
    """Status, headers and body; `None` if there was no answer."""
    connection = http.client.HTTPConnection(host, PORT, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def status(host, seconds=2):
    """What a node says of itself; `None` if it says nothing."""
    answer = get(host, "/status", seconds)
    return json.loads(answer[2]) if answer and answer[0] == 200 else None
