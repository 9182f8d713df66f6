"""What passes between the engine, the spawner and the monitors, and what a monitor leaves on disk.

    engine  --SEQPACKET: one Start + fds-->  spawner  --fork-->  monitor
    monitor --SEQPACKET on the reply fd: one Started-->       engine
    monitor --writes-->  <directory>/status.json (TaskStatus), <directory>/exit.json (ExitRecord, once)

fds of a start message, in this order: the reply socket; then, when `attached` is true, one end of a stream
socket that speaks the attach protocol (orlop.supervise.attach) and is the first attached client; then, when
`has_network` is true, a network namespace; then a detached mount for each of `trees`. What follows the client the
monitor keeps until the container has ended for good.

A message is at most MESSAGE_BYTES_MAX bytes of JSON; anything large (the OCI spec) lies in the bundle.
"""

from .record import Record
from .runtime import Box, Mount, Process

MESSAGE_BYTES_MAX = 128 * 1024
TREES_MAX = 16
FDS_MAX = 3 + TREES_MAX  # of a message: the reply socket, the client's, a network namespace

STATUS_FILE = "status.json"
EXIT_FILE = "exit.json"
SPEC_FILE = "config.json"
LOG_FILE = "log.json"
TRIMMED_DIRECTORY = "trimmed"  # beside that of the containers: what went of their logs
LOG_NUMBERS_FILE = "log.numbers"
LOG_SHIPPED_FILE = "log.shipped"
HEALTH_FILE = "health.json"
GRANTED, ENVIRONMENT = "granted", "environment"  # where secrets and configs lie in memory; those that are variables
ATTACH_SOCKET = "attach.sock"

LOG_DRIVERS = ("json-file", "local", "none", "syslog", "journald", "fluentd", "gelf", "splunk")


class LogOptions(Record):
    """How a container's output is kept. driver "none" keeps nothing; every other one keeps a file that can be read.

    max_size_bytes 0 means no limit; max_files counts the live one; compress: rotated files.
    budget_bytes: what the logs of all containers together may take, 0 for no limit.
    attrs: shown by every entry (labels, environment, tag).
    remote: for a driver that sends entries somewhere, its settings with all defaults filled in (compile.logging).
    """

    driver: str = "json-file"
    max_size_bytes: int = 50 * 1024 * 1024
    max_files: int = 2
    compress: bool = False
    budget_bytes: int = 0
    attrs: dict[str, str] = {}
    remote: dict[str, str] = {}


class HealthCheck(Record):
    """How a container's health is checked: by a command, or from outside in its network namespace.

    process: the command, as for an exec; None for a connection to host:port, with an HTTP request when path is set.
    host: an address, "" is the container's loopback. Times in nanoseconds, 0 is docker's default.
    on_failure: what becomes of a container that is unhealthy: none, kill, restart, stop, exec; action: the command of
    that. stop_signal: its number.
    """

    process: Process | None = None
    host: str = ""
    port: int = 0
    path: str = ""
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0
    on_failure: str = "none"
    action: Process | None = None
    stop_signal: int = 15
    stop_timeout_s: int = 10


class JoinedNamespace(Record):
    """A namespace of another container's process, looked up at each start. type: as in the OCI spec.

    container: what errors call it. pid, pid_start_time: of its first process, from its TaskStatus.
    """

    type: str
    container: str
    pid: int
    pid_start_time: int


class StartTask(Record):
    """Start the process of a container whose bundle lies in `directory` (SPEC_FILE is there).

    id: the container's 64 hex digits.
    runtime_directory: where the monitor listens (ATTACH_SOCKET); it exists, mode 0700.
    rootfs: what to mount as the root file system (types "overlay" and "bind"; destination unused).
    user: "" or docker's USER ("uid", "name", "uid:gid", "name:group"): resolved against passwd and group
        inside the root file system, and stronger than process.user of the spec.
    open_stdin: keep standard input open for clients; else the process reads end of file.
    stdin_once: close standard input when the first attached client goes.
    joined: namespaces of other containers that the process joins instead of the spec's.
    has_network: a network namespace comes with the message: the process joins it instead of the spec's.
    trees: destinations of the spec's mounts for which a detached mount comes with the message, at most TREES_MAX.
    restarts: how often the container was restarted before this start by a policy.
    removed_at_end: the container goes with its process, so how that ended need not survive a power cut.
    timeout_s: the process is killed when it has run for so long; 0 for never.
    waits: see Started; of the first run alone.
    """

    id: str
    directory: str
    runtime_directory: str
    rootfs: tuple[Mount, ...]
    user: str = ""
    groups: tuple[str, ...] = ()
    open_stdin: bool = False
    stdin_once: bool = False
    attached: bool = False
    console_size: Box | None = None
    log: LogOptions = LogOptions()
    has_network: bool = False
    trees: tuple[str, ...] = ()
    joined: tuple[JoinedNamespace, ...] = ()
    restarts: int = 0
    removed_at_end: bool = False
    timeout_s: int = 0
    waits: bool = False
    health: HealthCheck | None = None


class StartExec(Record):
    """Run one more process in a running container.

    directory, runtime_directory: of the container; the exec's own files are below `exec/<exec_id>/` of each.
    pid, pid_start_time: of the container's init, from its TaskStatus.
    process: as in the OCI process.json; capabilities and no_new_privileges are already decided.
    ends_with_client: kill it and what it started when the first client goes without DETACH (orlop.spec.attach).
    """

    id: str
    exec_id: str
    directory: str
    runtime_directory: str
    pid: int
    pid_start_time: int
    process: Process
    user: str = ""
    groups: tuple[str, ...] = ()
    open_stdin: bool = False
    ends_with_client: bool = False
    attached: bool = False
    console_size: Box | None = None


class Start(Record):
    """One message to the spawner. Exactly one of the fields is set."""

    strict = True
    task: StartTask | None = None
    exec: StartExec | None = None

    def check(self) -> None:
        if (self.task is None) == (self.exec is None):
            raise ValueError("exactly one of task and exec is wanted")


GO = b"go"


class Started(Record):
    """The monitor's reply. error is OrlopError.to_json(), or None when the process was executed.

    waits: it is made, and its command is executed when the engine answers GO: then comes the reply. Else it is undone.
    """

    pid: int = 0
    waits: bool = False
    error: object = None


class TaskStatus(Record):
    """status.json. Start times are field 22 of /proc/PID/stat, in clock ticks: with boot_id they make a pid unique.

    started_at: RFC 3339 with nanoseconds, UTC: the name of the run. pid: 0 for a restart whose command was never
    executed. restarts: how often a restart policy had started the container again, this run counted.
    finished_before: when the run before this one ended, "" for the first.
    """

    pid: int
    pid_start_time: int
    monitor_pid: int
    monitor_start_time: int
    boot_id: str
    started_at: str
    cgroup: str = ""
    restarts: int = 0
    finished_before: str = ""


class HealthResult(Record):
    """One check. exit_code: 0 healthy, -1 when it took too long or could not be made. output: its beginning."""

    started_at: str
    ended_at: str
    exit_code: int
    output: str = ""


class Health(Record):
    """health.json. run: the started_at of the run it is about. status: "starting", "healthy" or "unhealthy".

    failing_streak: how many checks have failed one after the other. log: the last of them, the oldest first.
    """

    run: str
    status: str
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


HEALTH_CHECK, TIMEOUT = "health check", "timeout"  # of ExitRecord.ended_by


class ExitRecord(Record):
    """exit.json. exit_code is docker's: the status, or 128 plus the signal. signal 0 when it exited by itself.

    restart_at: when the monitor starts the next run, "" when this one was the last. ended_by: HEALTH_CHECK when the
    monitor ended the process because it was unhealthy, TIMEOUT when its time was up (then exit_code is 255), else "".
    memory_peak_bytes: after an OOM kill, 0 is not known.
    sent_signal, sent_by_uid, sent_by_pid: the last signal that --init's process 1 passed on, and whose it was, as the
    container counts them: pid 0 is outside; sent_signal 0 when there was none, or nobody looked.
    """

    exit_code: int
    signal: int = 0
    oom_killed: bool = False
    started_at: str
    finished_at: str
    error: str = ""
    restart_at: str = ""
    ended_by: str = ""
    memory_peak_bytes: int = 0
    sent_signal: int = 0
    sent_by_uid: int = 0
    sent_by_pid: int = 0
