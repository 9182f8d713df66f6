"""The engine's half: starts the spawner, sends it what to start, waits for the answer. Any thread may call it."""

import os
import resource
import select
import sys
from _socket import SHUT_WR, SO_SNDBUF, SOL_SOCKET, socket
from _thread import allocate_lock

from ..linux import executable
from ..linux.netlink import namespace
from ..spec import jsonio
from ..spec.errors import Internal, Invalid, Unavailable
from ..spec.task import GO, MESSAGE_BYTES_MAX, TREES_MAX, Start, Started, StartExec, StartTask
from . import packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_S_MAX = 120.0  # hooks may take their time
SEND_S_MAX = 10.0
DEATH_S_MAX = 1.0
_SPAWNER_FD = 3
_NO_WILL = b"\0"
# Who serves whom, for those who look at the processes of a machine; the rest is the engine's alone.
_ENVIRONMENT = ("HOME", "LANG", "ORLOP_ROOT", "ORLOP_RUN", "PATH", "TMPDIR", "TZ", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[2]); from orlop import frozen; frozen.thaw('spawner'); "
    "from orlop.supervise import spawner; "
    "spawner.main(int(sys.argv[1]), *map(int, sys.argv[3:]))"
)


class Spawner:
    """A connection to a spawner process that is started when it is needed and dies with this object, or with us."""

    def __init__(self, python: str = "") -> None:
        """python: the interpreter to run it with; our own by default."""
        self._python = python or sys.executable
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # before the engine raises its own
        self._lock = allocate_lock()
        self._socket: socket | None = None
        self._pid = 0
        self._will = b""

    @property
    def pid(self) -> int:
        """The process, 0 before the first start. It may have died since."""
        return self._pid

    def start(self) -> None:
        """Start the spawner process if none runs; the first request does it too. Raises Unavailable."""
        with self._lock:
            if self._socket is None:
                self._spawn()

    def bequeath(self, argv: "Sequence[str]") -> None:
        """Have a command started once we are gone without `close`: killed. The last one counts."""
        will = b"".join(word.encode() + b"\0" for word in argv)
        with self._lock:
            if will != self._will:
                self._will = will
                self._tell_will()

    def request(
        self,
        message: StartTask | StartExec,
        client: int | None = None,
        network: int | None = None,
        trees: "Sequence[int]" = (),
        gate: "Callable[[int], bool] | None" = None,
    ) -> Started:
        """Have a process started and return the answer of its monitor: its error is set when there is no process.

        client: one end of a connected stream socket that becomes the first attached client; it stays the caller's.
        network: a network namespace that the container joins, and its monitor keeps; it stays the caller's too.
        trees: detached mounts, as the message says; the same holds for them.
        gate: called with the pid of what was made when the message says that it waits: tells whether it goes on.
        Raises Invalid for a message that is too large, Unavailable when no monitor can be made or none answers.
        """
        if message.attached != (client is not None):
            raise Invalid("start", f"container {message.id[:12]}", "attached and the client's stream do not fit")
        if (isinstance(message, StartTask) and message.has_network) != (network is not None):
            raise Invalid("start", f"container {message.id[:12]}", "has_network and the network's namespace do not fit")
        if len(trees) != (len(message.trees) if isinstance(message, StartTask) else 0) or len(trees) > TREES_MAX:
            cause = f"{len(trees)} mounts come with it, which are not those of its message, or more than {TREES_MAX}"
            raise Invalid("start", f"container {message.id[:12]}", cause, hint="use fewer volumes with type=tmpfs")
        start = Start(task=message) if isinstance(message, StartTask) else Start(exec=message)
        data = jsonio.dump(start.to_json())
        if len(data) > MESSAGE_BYTES_MAX:
            cause = f"the start message has {len(data)} bytes, the limit is {MESSAGE_BYTES_MAX}"
            raise Invalid(
                "start", f"container {message.id[:12]}", cause, hint="pass large values in a file", code="E0212"
            )
        fds = [*(fd for fd in (client, network) if fd is not None), *trees]
        answer = self._ask(data, fds, gate)
        if not answer and self._is_gone():
            # Nothing runs: the spawner died before it received this, or whoever it forked for this died too.
            answer = self._ask(data, fds, gate)
        if not answer:
            raise Unavailable(
                "start", "a process", "its monitor died before it answered", hint="try again", code="E1106"
            )
        try:
            return Started.from_json(jsonio.parse_object(answer, "the monitor's answer"))
        except Invalid as wrong:
            raise Internal("start", "a process", str(wrong)) from None

    def close(self) -> None:
        """Let the spawner end, and wait for it. Monitors live on. Idempotent."""
        with self._lock:
            if self._will:
                self._will = _NO_WILL
                self._tell_will()
            self._bury()

    def _tell_will(self) -> None:
        """Tell the spawner the will, if there is one; the next one is told when it is started."""
        if self._will and self._socket is not None:
            try:
                packet.send(self._socket, self._will)
            except OSError:
                pass  # it was killed, which the next message finds, or has not taken anything for SEND_S_MAX

    def _ask(self, data: bytes, fds: "Sequence[int]", gate: "Callable[[int], bool] | None") -> bytes:
        """Send a message and return the answer, b"" when whoever got it has died."""
        ours, theirs = packet.pair()
        try:
            try:
                self._send(data, [theirs.fileno(), *fds])
            finally:
                theirs.close()
            ours.settimeout(START_S_MAX)
            answer = ours.recv(MESSAGE_BYTES_MAX)
            if gate is None or not answer:
                return answer
            made = Started.from_json(jsonio.parse_object(answer, "the monitor's answer"))
            if not made.waits:
                return answer
            goes = gate(made.pid)
            try:
                packet.send(ours, GO) if goes else ours.shutdown(SHUT_WR)
                return ours.recv(MESSAGE_BYTES_MAX)
            except OSError:  # whoever waited was killed
                return b""
        except TimeoutError:
            cause = f"its monitor has not answered within {START_S_MAX:.0f} s"
            raise Unavailable("start", "a process", cause, code="E1106") from None
        finally:
            ours.close()

    def _send(self, data: bytes, fds: "Sequence[int]") -> None:
        with self._lock:
            for _ in range(2):
                if self._socket is None:
                    self._spawn()
                assert self._socket is not None
                try:
                    packet.send(self._socket, data, fds)
                    return
                except (BrokenPipeError, ConnectionResetError):
                    self._bury()  # killed: nothing was sent, so a new one may be asked
                except TimeoutError:
                    hint = f"is process {self._pid} stopped?"
                    raise Unavailable("start", "a monitor", "the spawner takes no message", hint=hint) from None
        raise Unavailable("start", "a monitor", "the spawner does not stay alive")

    def _is_gone(self) -> bool:
        """Tell whether the spawner died, after its message was lost: the kernel closes what it held one by one."""
        with self._lock:
            if self._socket is None:
                return True
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLRDHUP)
            return bool(poll.poll(DEATH_S_MAX * 1000))

    def _spawn(self) -> None:
        ours, theirs = packet.pair()
        cache = ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()
        options = ("-I", "-S", "-X", "utf8", *cache)
        argv = [self._python, *options, "-c", _BOOTSTRAP, str(_SPAWNER_FD), _PACKAGE_PARENT, str(self._nofile)]
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), _SPAWNER_FD),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
        ]
        try:
            ours.setsockopt(SOL_SOCKET, SO_SNDBUF, 4 * MESSAGE_BYTES_MAX)
            ours.settimeout(SEND_S_MAX)
            # What inits execute until their execve, a container may get hold of: no file of the host's (CVE-2019-5736).
            copy = executable.sealed_copy(self._python, "orlop")
            try:
                path = f"/proc/{os.getpid()}/fd/{copy}"

                def spawn() -> int:
                    return os.posix_spawn(path, argv, _environment(), file_actions=actions, setsid=True)

                self._pid = namespace.outside(spawn)  # --network host means the machine's
            finally:
                os.close(copy)
        except OSError as failure:
            ours.close()
            raise Unavailable("start", "the spawner", f"{self._python}: {failure.strerror}") from None
        finally:
            theirs.close()
        self._socket = ours
        self._tell_will()

    def _bury(self) -> None:
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass
        self._pid = 0


def _environment() -> dict[str, str]:
    """Return what the spawner is given of our environment: its children could show the rest to a container's hooks."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
