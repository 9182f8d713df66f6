"""An agent for SCMP_ACT_NOTIFY: takes one listener from a runtime and refuses every call that it is asked about."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from pathlib import Path

# linux/seccomp.h: struct seccomp_notif (80 bytes) and seccomp_notif_resp (24 bytes).
RECEIVE, SEND = 0xC0502100, 0xC0182101
REQUEST_BYTES = 80


class Agent:
    """Listens at a path. state: the JSON that came with the listener; calls: (pid, number) of what was asked."""

    def __init__(self, path: Path, answer: int = errno.ENOTUNIQ) -> None:
        self.state: dict[str, object] = {}
        self.calls: list[tuple[int, int]] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(60)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._socket.shutdown(socket.SHUT_RDWR)  # nobody comes any more: a test that was skipped, for instance
        self._thread.join(60)
        self._socket.close()

    def _serve(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # nobody came
        with connection:
            # One message: runc leaves the connection open until its end.
            data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        self.state = json.loads(data)
        listener = array.array("i", ancillary[0][2])[0]
        try:
            self._answer_calls(listener)
        finally:
            os.close(listener)

    def _answer_calls(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while True:
            if any(event & select.POLLHUP for _, event in poll.poll(60_000)):
                return  # the last process with the filter has gone
            request = bytearray(REQUEST_BYTES)
            try:
                fcntl.ioctl(listener, RECEIVE, request)
            except (FileNotFoundError, InterruptedError):
                continue
            identity, pid, _, number = struct.unpack_from("=QIIi", request)
            self.calls.append((pid, number))
            try:
                fcntl.ioctl(listener, SEND, struct.pack("=QqiI", identity, 0, -self._answer, 0))
            except FileNotFoundError:
                continue  # killed meanwhile
