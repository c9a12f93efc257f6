"""Sessions that come in and ask nothing."""

import resource
import socket
import struct

from servers import DATABASE, PATIENCE, USER, CannotMeasure

SPARE = 200  # descriptors for everything else


def allow_descriptors(sessions):
    """Raises the limit for this process and those that it starts: execpool has one descriptor
    for each session, and so have we."""
    needed = sessions + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        if hard < needed:
            hard = needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    except (OSError, ValueError) as error:
        raise CannotMeasure(
            f"{sessions} sessions need {needed} descriptors, and the limit (ulimit -Hn) is {hard}: {error}"
        )


class Sessions:
    """So many at once, for the time of a `with`."""

    def __init__(self, server, count):
        self.path = str(server.sockets / ".s.PGSQL.5432")
        self.count = count
        self.sockets = []

    def __enter__(self):
        try:
            for number in range(self.count):
                self.sockets.append(session(self.path))
        except OSError as error:
            self.__exit__()
            raise CannotMeasure(f"session {number + 1} of {self.count}: {error}")
        return self

    def __exit__(self, *_):
        while self.sockets:
            self.sockets.pop().close()


def session(path):
    """A connection that is told it may ask."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(startup())
        heard = b""
        while not is_ready(heard):
            more = connection.recv(4096)
            if not more:
                raise OSError(f"closed at startup, having said {heard!r}")
            heard += more
    except BaseException:
        connection.close()
        raise
    return connection


def startup():
    """StartupMessage, protocol 3.0."""
    words = {"user": USER, "database": DATABASE, "application_name": "bench"}
    body = struct.pack("!I", 196608)
    for name, value in words.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def is_ready(heard):
    """Whether the messages so far end with ReadyForQuery; an error is raised."""
    while len(heard) >= 5:
        kind, length = heard[:1], struct.unpack("!I", heard[1:5])[0]
        if kind == b"E":
            raise OSError(f"refused: {heard[5:].replace(bytes(1), b' ').decode(errors='replace')}")
        if len(heard) < length + 1:
            return False
        if kind == b"Z":
            return True
        heard = heard[length + 1 :]
    return False
