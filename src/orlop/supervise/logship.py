"""The log shipper: a process that sends a container's log on to syslog, journald, fluentd, Graylog or Splunk.

    monitor --writes--> log.json <--follows-- log shipper --> wherever the log driver sends to

It reads the same file as `orlop logs`, so a receiver that is slow or gone never delays the container: its output waits
in the file. What is rotated away before it could be sent is missing there, and a message says how much that is.

One for each monitor whose container has such a driver; it ends when the monitor has ended and all is sent, or nobody
took anything for GIVE_UP_S. A monitor starts another one when its shipper is killed; that goes on at the last line
that was taken, of which `log.shipped` tells (Progress). Loaded in its own process only.
"""

import os
import select
import socket
import time

from ..linux import executable, path, process
from ..spec.task import LOG_NUMBERS_FILE, LOG_SHIPPED_FILE
from . import logformats, logread
from .logread import Entry, Follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NUMBERS_BYTES_MAX = 64 * 1024
LINE_BYTES_MAX = 1024 * 1024  # a longer line goes in pieces
GIVE_UP_S = 10.0  # after the container's end
RETRY_S_MAX = 10.0
CONNECT_S_MAX = 10.0
SEND_S_MAX = 30.0
ANSWER_BYTES_MAX = 64 * 1024
SPLUNK_PATH = "/services/collector/event/1.0"
TLS_SCHEMES = ("tcp+tls", "tls")
LOCAL_SYSLOG = ("/dev/log", "/var/run/syslog", "/var/run/log")


class Sink:
    """Where entries go. settings: `spec.task.LogOptions.remote`. Opened when it is needed, again after a failure."""

    def __init__(self, settings: "Mapping[str, str]") -> None:
        self.settings = settings
        self.refused = 0  # entries that the protocol has no room for
        self._socket: socket.socket | None = None

    def send(self, entry: Entry, text: bytes) -> None:
        """Send one line, without its newline. Raises OSError: then it was not taken, or not wholly."""
        raise NotImplementedError

    def connect(self) -> socket.socket:
        """Return the connection. Raises OSError."""
        if self._socket is None:
            self._socket = self.dial(self.settings["address"])
            self._socket.settimeout(SEND_S_MAX)
        return self._socket

    def dial(self, address: str) -> socket.socket:
        """Return a connection, in TLS where the scheme says so. Raises OSError."""
        scheme, _, place = address.partition("://")
        return _encrypted(dial("tcp://" + place), place, self.settings) if scheme in TLS_SCHEMES else dial(address)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Syslog(Sink):
    def send(self, entry: Entry, text: bytes) -> None:
        message = logformats.syslog(entry, text, {**self.settings, "pid": str(os.getpid())})
        with_length = self.settings["address"].startswith("tcp+tls://")
        self.connect().sendall(logformats.with_length(message) if with_length else message)

    def dial(self, address: str) -> socket.socket:
        return super().dial(address) if address else _dial_local()


class Journal(Sink):
    def send(self, entry: Entry, text: bytes) -> None:
        message = logformats.journal(entry, text, self.settings)
        try:
            self.connect().send(message)
        except OSError as wrong:
            if wrong.errno not in (90, 105):  # EMSGSIZE, ENOBUFS: too large for a datagram
                raise
            self._send_file(message)

    def _send_file(self, message: bytes) -> None:
        fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", buffering=0, closefd=False) as file:
                view = memoryview(message)
                while view:
                    view = view[file.write(view) :]
            executable.seal(fd)  # journald maps the file
            socket.send_fds(self.connect(), [b""], [fd])
        finally:
            os.close(fd)


class Fluentd(Sink):
    def send(self, entry: Entry, text: bytes) -> None:
        chunk = os.urandom(8).hex() if self.settings["ack"] else ""
        connection = self.connect()
        connection.sendall(logformats.fluent(entry, text, self.settings, chunk))
        if chunk and logformats.msgpack({"ack": chunk}) not in connection.recv(4096):
            raise ConnectionAbortedError(103, "the receiver did not acknowledge")


class Gelf(Sink):
    def send(self, entry: Entry, text: bytes) -> None:
        message = logformats.gelf(entry, text, self.settings)
        connection = self.connect()
        if self.settings["address"].startswith("tcp"):
            connection.sendall(message + b"\0")
            return
        message = _compressed(message, self.settings["compression"], int(self.settings["level"]))
        try:
            datagrams = list(logformats.chunks(message))
        except ValueError:
            self.refused += 1
            return
        for datagram in datagrams:
            connection.send(datagram)


class Splunk(Sink):
    """The HTTP Event Collector: a request for each line, on one connection for as long as the collector keeps it."""

    def send(self, entry: Entry, text: bytes) -> None:
        body = logformats.splunk(entry, text, self.settings)
        if not body:
            return
        headers = {"Authorization": f"Splunk {self.settings['token']}", "Content-Type": "application/json"}
        if self.settings["gzip"]:
            headers["Content-Encoding"] = "gzip"
            body = _compressed(body, "gzip", int(self.settings["level"]))
        status, reason = self._post(body, headers)
        if status == 400:  # this event, and no later try of it; a wrong token is 401 or 403
            self.refused += 1
        elif status != 200:
            raise ConnectionAbortedError(103, f"the collector answers {status} {reason}")

    def _post(self, body: bytes, headers: "dict[str, str]") -> tuple[int, str]:
        import http.client

        place = self.settings["address"].partition("://")[2]
        request = http.client.HTTPConnection(place)
        request.auto_open = 0  # it would open what is not encrypted
        request.sock = self.connect()
        try:
            request.request("POST", SPLUNK_PATH, body, headers)
            answer = request.getresponse()
            if len(answer.read(ANSWER_BYTES_MAX)) == ANSWER_BYTES_MAX or answer.will_close:
                self.close()
            return answer.status, answer.reason[:200]
        except (http.client.HTTPException, ValueError) as wrong:  # ValueError: a chunk of less than nothing
            raise ConnectionAbortedError(103, f"the collector speaks no HTTP: {type(wrong).__name__}") from None


SINKS: "dict[str, Callable[[Mapping[str, str]], Sink]]" = {
    "syslog": Syslog,
    "journald": Journal,
    "fluentd": Fluentd,
    "gelf": Gelf,
    "splunk": Splunk,
}


class Progress:
    """How far the entries of a monitor were sent: log.shipped, one line of text, written by its shipper alone.

    time_ns, same: all entries before this moment were sent, and so many of it. position: how many that makes, with
    the missing ones, since the monitor began. missing: rotated away before they could be sent. undelivered, cause:
    what was left when nobody took them, and why.
    """

    WIDTH = 512

    def __init__(self, fd: int, run: str = "") -> None:
        """fd: of the file, read and written. run: the `started_at` of the monitor's first run, "" for any."""
        self._fd = fd
        self.run = run
        self.time_ns = self.same = self.position = self.missing = self.undelivered = 0
        self.cause = ""
        found, *numbers = os.pread(fd, self.WIDTH, 0).decode(errors="replace").split(maxsplit=6) or [""]
        if run in ("", found) and len(numbers) >= 5 and all(number.isdecimal() for number in numbers[:5]):
            self.time_ns, self.same, self.position, self.missing, self.undelivered = map(int, numbers[:5])
            self.cause = "".join(numbers[5:]).strip()

    def taken(self, entry: Entry, position: int) -> None:
        """Note that the receiver has everything up to this entry."""
        self.same = self.same + position - self.position if entry.time_ns == self.time_ns else 1
        self.time_ns, self.position = entry.time_ns, position
        self.write()

    def write(self) -> None:
        numbers = (self.time_ns, self.same, self.position, self.missing, self.undelivered)
        line = f"{self.run} {' '.join(map(str, numbers))} {self.cause}".encode(errors="replace")
        try:
            os.pwrite(self._fd, line[: self.WIDTH - 1].ljust(self.WIDTH - 1) + b"\n", 0)
        except OSError:
            pass  # a full disk: a shipper that follows sends some lines again


class Shipper:
    """Brings entries to a sink, each line whole, in order, until the sink has taken it."""

    def __init__(self, sink: Sink, follow: Follow, progress: Progress) -> None:
        """follow: its writer is the monitor."""
        self._sink = sink
        self._follow = follow
        self._progress = progress
        self._writer = select.poll()
        self._writer.register(follow.writer, select.POLLIN)
        self._pending: dict[str, bytes] = {}
        self._position = progress.position
        self._inode = 0
        self._refused = 0
        self._failure = ""

    def run(self, directory: str, since_ns: int) -> None:
        """Send the log from a moment on, until the monitor has ended and all is sent, or nobody takes it."""
        known_ns, known = self._progress.time_ns, self._progress.same
        entries = logread.read(directory, since_ns=max(since_ns, known_ns), follow=self._follow)
        for entry in entries:
            if entry.time_ns == known_ns and known:
                known -= 1
            elif not self._pass_on(directory, entry):
                self._give_up(1 + sum(1 for _ in entries))
                return
        for stream, text in self._pending.items():
            if not self._deliver(Entry(text, stream, "", time.time_ns()), text):
                self._give_up(1)
                return

    def _pass_on(self, directory: str, entry: Entry) -> bool:
        if self._follow.inode != self._inode and not self._tell_missing(directory, entry):
            return False
        self._position += 1
        text = self._pending.pop(entry.stream, b"") + entry.data
        if not text.endswith(b"\n") and len(text) < LINE_BYTES_MAX:
            self._pending[entry.stream] = text
            return True
        if not self._deliver(entry, text.removesuffix(b"\n")):
            return False
        if not self._pending:
            self._progress.taken(entry, self._position)
        if self._sink.refused > self._refused:
            self._refused = self._sink.refused
            return self._tell(entry, b"%d lines were too long to be sent, or refused" % self._refused)
        return True

    def _tell_missing(self, directory: str, entry: Entry) -> bool:
        """Say how many entries went between two files."""
        self._inode = self._follow.inode
        first = _numbers(directory).get(self._inode, 0)
        if first <= self._position:
            return True
        missing, self._position = first - self._position, first
        self._progress.missing += missing
        text = b"%d lines are missing here: the log was rotated away before they could be sent" % missing
        return self._tell(entry, text)

    def _give_up(self, undelivered: int) -> None:
        self._progress.undelivered = undelivered
        self._progress.cause = self._failure
        self._progress.write()

    def _tell(self, entry: Entry, text: bytes) -> bool:
        return self._deliver(Entry(b"", "stderr", "", entry.time_ns), b"orlop: " + text)

    def _deliver(self, entry: Entry, text: bytes) -> bool:
        """Send one line, however often that takes; return False to give up."""
        pause_s = 0.1
        give_up_at: float | None = None
        while True:
            try:
                self._sink.send(entry, text)
                return True
            except OSError as failure:
                self._sink.close()
                self._failure = failure.strerror or str(failure)
            if self._writer.poll(0 if give_up_at else pause_s * 1000):
                give_up_at = give_up_at or time.monotonic() + GIVE_UP_S
                if time.monotonic() > give_up_at:
                    return False
                time.sleep(min(pause_s, 0.5))
            pause_s = min(pause_s * 2, RETRY_S_MAX)


def main(directory_fd: int, monitor: int, started_at: str, settings: "Mapping[str, str]", pause_s: float) -> None:
    """Ship what a monitor (a pidfd) writes from a moment on (RFC 3339). For a process of its own, which then ends.

    pause_s: before it begins; a shipper that dies again and again must not keep the machine busy.
    """
    # Opened anew: the monitor's lock on the directory goes with the last copy of its descriptor, and we live longer.
    directory_fd = os.open(f"/proc/self/fd/{directory_fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    process.close_all_except({directory_fd, monitor})
    time.sleep(pause_s)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    progress = Progress(os.open(LOG_SHIPPED_FILE, flags, 0o600, dir_fd=directory_fd), started_at)
    sink = SINKS[settings["driver"]](settings)
    Shipper(sink, Follow(monitor), progress).run(f"/proc/self/fd/{directory_fd}", logread.parse_time(started_at))


def _numbers(directory: str) -> dict[int, int]:
    """Return the number of the first entry of each file, by inode number."""
    try:
        words = path.read_file(f"{directory}/{LOG_NUMBERS_FILE}", _NUMBERS_BYTES_MAX).split()
        return dict(zip(map(int, words[::2]), map(int, words[1::2]), strict=False))
    except (OSError, ValueError):
        return {}


def dial(address: str) -> socket.socket:
    """Return a connection to tcp://host:port, udp://host:port, unix:///path or unixgram:///path. Raises OSError."""
    scheme, _, place = address.partition("://")
    if scheme in ("unix", "unixgram"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM)
        return _connected(connection, place)
    host, _, port = place.rpartition(":")
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    failure: OSError = ConnectionRefusedError(111, f"{host} has no address")
    for family, _, _, _, target in socket.getaddrinfo(host.strip("[]"), int(port), type=kind):
        try:
            return _connected(socket.socket(family, kind), target)
        except OSError as wrong:
            failure = wrong
    raise failure


def _connected(connection: socket.socket, target: object) -> socket.socket:
    try:
        connection.settimeout(CONNECT_S_MAX)
        connection.connect(target)  # type: ignore[arg-type]
    except BaseException:
        connection.close()
        raise
    return connection


def _dial_local() -> socket.socket:
    failure: OSError = FileNotFoundError(2, "no syslog listens here")
    for scheme in ("unixgram", "unix"):
        for place in LOCAL_SYSLOG:
            try:
                return dial(f"{scheme}://{place}")
            except OSError as wrong:
                failure = wrong
    raise failure


def _encrypted(connection: socket.socket, place: str, settings: "Mapping[str, str]") -> socket.socket:
    """Return a connection in TLS. place: HOST:PORT. settings may have ca, cert, key, skip_verify, server_name."""
    import ssl

    context = ssl.create_default_context(cafile=settings.get("ca") or None)
    if settings.get("cert"):
        context.load_cert_chain(settings["cert"], settings.get("key") or None)
    if settings.get("skip_verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    host = settings.get("server_name") or place.rpartition(":")[0].strip("[]")
    return context.wrap_socket(connection, server_hostname=host)


def _compressed(message: bytes, kind: str, level: int) -> bytes:
    import zlib

    if kind == "none":
        return message
    packer = zlib.compressobj(level, wbits=zlib.MAX_WBITS + (16 if kind == "gzip" else 0))
    return packer.compress(message) + packer.flush()
