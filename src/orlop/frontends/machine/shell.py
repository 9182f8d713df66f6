"""A command in a machine for `orlop machine ssh`: on a terminal or on pipes, a process of its own for each.

Standard input is the stream: a line of JSON, {"command": [words], "terminal": bool}, then frames (spec.attach).
"""

from __future__ import annotations

import os
import select
import signal
import socket

from ...linux import pidfd, tty
from ...spec import attach, jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

REQUEST_BYTES_MAX = 128 * 1024
_PIECE_BYTES = 32 * 1024
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "xterm",
}


def main() -> None:
    """Serve the stream that is standard input, to the end of the command."""
    stream = socket.socket(fileno=0)
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte or len(line) > REQUEST_BYTES_MAX:
            return
        line += byte
    request = jsonio.parse_object(line, "the request")
    words = request.get("command")
    command = [str(word) for word in words] if isinstance(words, list) and words else ["/bin/sh", "-l"]
    shell = _Shell(stream, command, terminal=request.get("terminal") is True)
    shell.carry()


class _Shell:
    """The command and its streams. outputs: descriptor -> kind of frame."""

    def __init__(self, stream: socket.socket, command: list[str], *, terminal: bool) -> None:
        self._stream = stream
        self._decoder = attach.Decoder()
        self._terminal = -1
        if terminal:
            peer, _, self._terminal = tty.open_pty(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
            theirs = [peer, peer, peer]
            self._input = self._terminal
            self._outputs = {self._terminal: attach.STDOUT}
        else:
            pipes = [os.pipe(), os.pipe(), os.pipe()]
            theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
            self._input = pipes[0][1]
            self._outputs = {pipes[1][0]: attach.STDOUT, pipes[2][0]: attach.STDERR}
        self._pid = os.fork()
        if not self._pid:
            _become(command, theirs, terminal=terminal)
        for fd in set(theirs):
            os.close(fd)
        self._pidfd = pidfd.pidfd_open(self._pid)

    def carry(self) -> None:
        """Carry bytes until the command has ended, and say how."""
        has_client = True
        while True:
            wanted = [self._pidfd, *self._outputs, *([self._stream.fileno()] if has_client else [])]
            ready = select.select(wanted, [], [])[0]
            if self._stream.fileno() in ready:
                data = self._stream.recv(_PIECE_BYTES)
                has_client = bool(data)
                if not data:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGHUP)
                for kind, payload in self._decoder.feed(data):
                    self._take(kind, payload)
            for fd in [fd for fd in self._outputs if fd in ready]:
                self._pass(fd)
            # What it wrote before its end is read first; what an orphan still writes is not waited for.
            if self._pidfd in ready and not [fd for fd in self._outputs if fd in ready]:
                break
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        record = jsonio.dump({"exitCode": status if status >= 0 else 128 - status})
        self._stream.sendall(attach.frame(attach.EXIT, record))

    def _pass(self, fd: int) -> None:
        try:
            data = os.read(fd, _PIECE_BYTES)
        except OSError:  # EIO: nobody has the terminal any more
            data = b""
        if data:
            self._stream.sendall(attach.frame(self._outputs[fd], data))
        else:
            del self._outputs[fd]

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == attach.STDIN and payload and self._input >= 0:
            try:
                while payload:
                    sent = os.write(self._input, payload)
                    payload = payload[sent:]
                    self._stream.sendall(attach.frame(attach.TAKEN, sent.to_bytes(4, "big")))
            except OSError:  # EPIPE, EIO: it reads no more
                self._stream.sendall(attach.frame(attach.TAKEN, len(payload).to_bytes(4, "big")))
        elif kind == attach.STDIN and self._input >= 0 and self._terminal < 0:
            os.close(self._input)
            self._input = -1
        elif kind == attach.RESIZE and self._terminal >= 0 and len(payload) == 4:
            tty.set_size(self._terminal, int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))
        elif kind == attach.SIGNAL and len(payload) == 1:
            signal.pidfd_send_signal(self._pidfd, payload[0])


def _become(command: list[str], theirs: list[int], *, terminal: bool) -> NoReturn:
    try:
        os.setsid()
        for number, fd in enumerate(theirs):
            os.dup2(fd, number)
        if terminal:
            tty.make_controlling(0)
        os.closerange(3, 64)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.chdir("/root")
        os.execvpe(command[0], command, _ENVIRONMENT)
    except OSError as wrong:
        os.write(2, f"orlop: {command[0]}: {wrong.strerror}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    main()
