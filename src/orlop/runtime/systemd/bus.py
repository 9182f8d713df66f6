"""A connection to systemd: its private socket, or the bus. One call at a time; signals are kept for who asks later.

Source: D-Bus Specification, "Authentication Protocol"; org.freedesktop.systemd1(5).
"""

import os
import select
import time
from _socket import AF_UNIX, MSG_NOSIGNAL, SOCK_STREAM, socket

from ...spec.errors import Conflict, Denied, OrlopError, Unavailable
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALL_TIMEOUT_S = 25.0  # sd-bus's and libdbus's own
_LINE_BYTES_MAX = 16 * 1024
_SIGNALS_MAX = 10_000
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"
_MACHINES = "/run/systemd/system"  # made by process 1 (sd_booted(3))
SYSTEMD = "org.freedesktop.systemd1"
SYSTEMD_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
_SOCK_CLOEXEC = 0o2000000


class Connection:
    """An authenticated connection. on_bus: through a bus daemon, which must be told the peer's name."""

    __slots__ = ("_on_bus", "_path", "_serial", "_signals", "_socket")

    def __init__(self, path: str, on_bus: bool) -> None:
        """Raises Unavailable, Denied; FileNotFoundError and ConnectionRefusedError when nobody listens at path."""
        self._path = path
        self._on_bus = on_bus
        self._serial = 0
        self._signals: list[wire.Message] = []
        self._socket = socket(AF_UNIX, SOCK_STREAM | _SOCK_CLOEXEC)
        self._socket.settimeout(CALL_TIMEOUT_S)
        try:
            self._socket.connect(path)
            self._authenticate()
            if on_bus:
                self.call(_BUS_PATH, _BUS, "Hello", destination=_BUS)
                rule = f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}'"
                self.call(_BUS_PATH, _BUS, "AddMatch", "s", (rule,), destination=_BUS)
                self.call(SYSTEMD_PATH, MANAGER, "Subscribe")  # else systemd sends no signals to buses
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(
        self, path: str, interface: str, member: str, signature: str = "", values: "Sequence[object]" = (),
        *, destination: str = SYSTEMD,
    ) -> list[object]:  # fmt: skip
        """Return what a method returns. Raises Denied, Conflict or Unavailable with the peer's words."""
        self._serial += 1
        fields: dict[int, object] = {wire.PATH: path, wire.INTERFACE: interface, wire.MEMBER: member}
        if self._on_bus:
            fields[wire.DESTINATION] = destination
        if signature:
            fields[wire.SIGNATURE] = signature
        self._send(wire.Message(wire.METHOD_CALL, self._serial, fields, values).encode())
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            message = self._receive(deadline, member)
            if message.fields.get(wire.REPLY_SERIAL) == self._serial:
                if message.kind == wire.ERROR:
                    raise _refusal(member, message)
                return message.body
            self._keep(message)

    def wait_for_signal(self, member: str, wanted: "Callable[[list[object]], bool]", timeout_s: float) -> list[object]:
        """Return the body of the first signal of the manager's that is wanted. Raises Unavailable after timeout_s."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self._signals:
                signal = self._signals.pop(0)
                if signal.text(wire.MEMBER) == member and wanted(signal.body):
                    return signal.body
            self._keep(self._receive(deadline, member))

    def _keep(self, message: wire.Message) -> None:
        if message.kind == wire.SIGNAL and message.text(wire.INTERFACE) == MANAGER:
            self._signals.append(message)
            del self._signals[:-_SIGNALS_MAX]

    def _authenticate(self) -> None:
        # The peer takes the uid from the socket (SO_PEERCRED); the line has only to agree.
        uid = str(_uid_outside()).encode().hex()
        # BEGIN at once, as sd-bus does: systemd overlooks a message that it reads together with BEGIN, and until more
        # comes it answers nothing (sd-bus, bus-socket.c; seen with 252).
        self._send(b"\0AUTH EXTERNAL " + uid.encode() + b"\r\nBEGIN\r\n")
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            line += byte
            if not byte or len(line) > _LINE_BYTES_MAX:
                raise Denied("reach", f"systemd at {self._path}", "it ended the authentication")
        if not line.startswith(b"OK "):
            raise Denied("reach", f"systemd at {self._path}", f"it refused uid {os.geteuid()}")

    def _receive(self, deadline: float, awaited: str) -> wire.Message:
        fixed = self._read(wire.FIXED_BYTES, deadline, awaited)
        return wire.parse(fixed + self._read(wire.size_of(fixed) - len(fixed), deadline, awaited))

    def _read(self, count: int, deadline: float, awaited: str) -> bytes:
        data = b""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        while len(data) < count:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Unavailable(
                    "wait for", f"{awaited} of systemd", "it took too long", hint="look at: systemctl list-jobs"
                )
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise Unavailable("wait for", f"{awaited} of systemd", "it closed the connection")
            data += chunk
        return data

    def _send(self, data: bytes) -> None:
        while data:
            data = data[self._socket.send(data, MSG_NOSIGNAL) :]


def _refusal(member: str, message: wire.Message) -> OrlopError:
    name = message.text(wire.ERROR_NAME)
    words = str(message.body[0]) if message.body else name
    kinds: dict[str, type[OrlopError]] = {
        "org.freedesktop.DBus.Error.AccessDenied": Denied,
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": Denied,
        "org.freedesktop.systemd1.UnitExists": Conflict,
    }
    return kinds.get(name, Unavailable)("call", f"{member} of systemd", words.rstrip(".") or name)


def connect() -> Connection:
    """Return a connection to the systemd that runs this user's units. Raises Unavailable where none runs."""
    tried = []
    for path, on_bus in _addresses():
        try:
            return Connection(path, on_bus)
        except OSError as failure:
            tried.append(f"{path}: {failure.strerror or failure}")
    raise Unavailable(
        "reach", "systemd", "; ".join(tried) or "there is no socket to look for",
        hint="give a plain cgroupsPath, without --systemd-cgroup",
    )  # fmt: skip


def is_machines() -> bool:
    """Tell whether process 1's systemd is ours to ask: its directory belongs to us, as we see users from here."""
    try:
        return os.stat(_MACHINES).st_uid == os.geteuid()
    except OSError:
        return os.geteuid() == 0


def _addresses() -> "list[tuple[str, bool]]":
    """systemd's own socket first: it is there before any bus daemon is."""
    if is_machines():
        return [("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{_uid_outside()}"
    return [(f"{runtime}/systemd/private", False), (f"{runtime}/bus", True)]


def _uid_outside() -> int:
    """Return our uid as a peer in the user namespace above sees it: a user's container is made in one of its own."""
    own = os.geteuid()
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return next((above + own - first for first, above, size in rows if first <= own < first + size), own)
