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
    os.environ.update(_ENVIRONMENT)
    os.chdir("/root")
    try:
        shell = _Shell(stream, command, terminal=request.get("terminal") is True)
    except OSError as wrong:
        stream.sendall(attach.frame(attach.STDERR, f"orlop: {command[0]}: {wrong.strerror}\n".encode()))
        stream.sendall(attach.frame(attach.EXIT, jsonio.dump({"exitCode": 127})))
        return
    shell.carry()


class _Shell:
    """The command and its streams. outputs: descriptor -> kind of frame."""

    def __init__(self, stream: socket.socket, command: list[str], *, terminal: bool) -> None:
        self._stream = stream
        self._decoder = attach.Decoder()
        self._terminal = -1
        self._typed = bytearray()  # what the command has not taken: the client sends no more than WINDOW_BYTES of it
        self._is_typed = False  # nothing follows
        if terminal:
            peer, number, self._terminal = tty.open_pty(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
            theirs = [peer]
            # Who leads a session and opens a terminal has it as its own from then on (tty_ioctl(4)).
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]]
            actions = [(os.POSIX_SPAWN_OPEN, 0, f"/dev/pts/{number}", os.O_RDWR, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
            self._input = self._terminal
            self._outputs = {self._terminal: attach.STDOUT}
        else:
            pipes = [os.pipe(), os.pipe(), os.pipe()]
            theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(theirs)]
            self._input = pipes[0][1]
            self._outputs = {pipes[1][0]: attach.STDOUT, pipes[2][0]: attach.STDERR}
        try:
            self._pid = os.posix_spawnp(
                command[0],
                command,
                _ENVIRONMENT,
                file_actions=actions,
                setsid=True,
                setsigdef=(signal.SIGPIPE,),
            )
        finally:
            for fd in theirs:
                os.close(fd)
        os.set_blocking(self._input, False)
        self._pidfd = pidfd.pidfd_open(self._pid)

    def carry(self) -> None:
        """Carry bytes until the command has ended, and say how."""
        has_client = True
        while True:
            wanted = [self._pidfd, *self._outputs, *([self._stream.fileno()] if has_client else [])]
            ready, writable, _ = select.select(wanted, [self._input] if self._typed and self._input >= 0 else [], [])
            if writable:
                self._write()
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
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal any more
            data = b""
        if data:
            self._stream.sendall(attach.frame(self._outputs[fd], data))
        else:
            del self._outputs[fd]

    def _write(self) -> None:
        try:
            sent = os.write(self._input, self._typed)
        except BlockingIOError:
            return
        except OSError:  # EPIPE, EIO: it reads no more
            sent = len(self._typed)
        del self._typed[:sent]
        self._stream.sendall(attach.frame(attach.TAKEN, sent.to_bytes(4, "big")))
        if not self._typed:
            self._end_input()

    def _end_input(self) -> None:
        if self._is_typed and self._input >= 0 and self._terminal < 0:
            os.close(self._input)
            self._input = -1

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == attach.STDIN:
            self._typed += payload
            self._is_typed = self._is_typed or not payload
            if len(self._typed) > 2 * attach.WINDOW_BYTES:
                raise ValueError("more input than there was room for")
            if not self._typed:
                self._end_input()
        elif kind == attach.RESIZE and self._terminal >= 0 and len(payload) == 4:
            tty.set_size(self._terminal, int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:], "big"))
        elif kind == attach.SIGNAL and len(payload) == 1:
            signal.pidfd_send_signal(self._pidfd, payload[0])
