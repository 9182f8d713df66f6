"""`orlop serve`: docker's API on TCP for those who show a certificate, on sockets that systemd opened, on paths."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.workspace import Workspace
from support import processes
from support.docker_http import Api
from support.engine import CHECKOUT, COMMAND, Environment
from support.tasks import wait_until

Peer = Callable[[str], Path]
READY_S_MAX = 60.0


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    with Workspace() as work:
        yield work.archive()


@pytest.fixture
def certificates(tmp_path: Path, peer: Peer) -> Path:
    """A directory with docker's names: ca.pem, server-cert.pem, server-key.pem, cert.pem, key.pem; stranger's too."""
    openssl = peer("openssl")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=tmp_path, check=True, capture_output=True)

    new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority".split()
    for name in ("ca", "other"):
        run(*new, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")
    names = tmp_path / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    for authority, key, certificate in (
        ("ca", "server-key.pem", "server-cert.pem"),
        ("ca", "key.pem", "cert.pem"),
        ("other", "stranger-key.pem", "stranger-cert.pem"),
    ):
        request = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=one -out request".split()
        run(*request, "-keyout", key)
        signed = f"x509 -req -in request -CA {authority}.pem -CAkey {authority}-key.pem -CAcreateserial -days 2"
        run(*signed.split(), "-extfile", str(names), "-out", certificate)
    return tmp_path


@contextmanager
def served(orlop: Environment, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `orlop serve` until the end of the context, and expect it to end well."""
    process = orlop.popen("serve", *flags)
    try:
        wait_for(orlop.run / "docker.sock", process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(READY_S_MAX) == 0


def wait_for(place: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(place))
            except (FileNotFoundError, ConnectionRefusedError):
                assert process.poll() is None and time.monotonic() < deadline, f"{place} did not come"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_docker_over_tls(orlop: Environment, certificates: Path, archive: Path, peer: Peer) -> None:
    port = orlop.inside(free_port)
    own = [f"--tls{name}={certificates / file}" for name, file in zip(("cacert", "cert", "key"), OWN, strict=True)]
    with served(orlop, "-H", f"tcp://127.0.0.1:{port}", *own):
        orlop("import", str(archive), "box:1")

        def docker(*words: str, cert: str = "cert.pem", key: str = "key.pem", data: bytes = b"") -> tuple[int, bytes]:
            flags = [f"--tlscacert={certificates}/ca.pem"]
            flags += [f"--tlscert={certificates}/{cert}", f"--tlskey={certificates}/{key}"] if cert else []
            argv = [peer("docker"), "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", *flags, *words]
            env = os.environ | {"DOCKER_CONFIG": str(certificates / "none")}  # where it would find cert.pem
            done = orlop.inside(
                lambda: subprocess.run(argv, env=env, input=data, capture_output=True, timeout=100, check=False)
            )
            return done.returncode, done.stderr if done.returncode else done.stdout

        assert docker("info", "--format", "{{.OSType}}") == (0, b"linux\n")
        assert docker("run", "--rm", "--network=none", "box:1", "echo", "over TLS") == (0, b"over TLS\n")
        # The client ends its sending side, and reads on: what is sent back is longer than any buffer.
        big = b"0123456789abcdef" * 65536
        assert docker("run", "-i", "--rm", "--network=none", "box:1", "cat", data=big) == (0, big)
        for cert, key in (("", ""), ("stranger-cert.pem", "stranger-key.pem")):
            code, told = docker("ps", cert=cert, key=key)
            assert code != 0 and b"certificate" in told, told
        for plain in (True, False):
            orlop.inside(lambda plain=plain: refused(port, certificates, plain))


def test_dockerds_file_and_certificates_that_are_renewed(
    orlop: Environment, certificates: Path, tmp_path: Path, peer: Peer
) -> None:
    """DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are all that a client has; SIGHUP ends nothing."""
    port = orlop.inside(free_port)
    keys = zip(("tlscacert", "tlscert", "tlskey"), OWN, strict=True)
    settings = {key: str(certificates / name) for key, name in keys} | {"live-restore": True, "tlsverify": True}
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps({"hosts": [f"tcp://127.0.0.1:{port}"], **settings}))
    env = os.environ | {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1"}
    env["DOCKER_CERT_PATH"] = str(certificates)

    def version() -> bytes:
        argv = [peer("docker"), "version", "--format", "{{.Server.Os}}"]
        done = orlop.inside(lambda: subprocess.run(argv, env=env, capture_output=True, timeout=100, check=False))
        return done.stdout if not done.returncode else done.stderr

    with served(orlop, "--config-file", str(file)) as process:
        assert version() == b"linux\n"
        # Another authority's from now on, the server's own too: the client that we know is a stranger.
        for name in ("cert", "key"):
            shutil.copy(certificates / f"stranger-{name}.pem", certificates / f"server-{name}.pem")
        assert version() == b"linux\n"
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: b"certificate signed by unknown authority" in version())
        (certificates / "server-cert.pem").write_text("broken")
        process.send_signal(signal.SIGHUP)
        log = orlop.root / "engine.log"
        wait_until(lambda: "certificates stay as they were" in log.read_text())
        assert b"unknown authority" in version() and process.poll() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"group": "docker"}', '"group" of'),
        ('{"authorization-plugins": ["x"]}', "orlop socket create"),
        ('{"live-restore": false}', "containers outlive every engine"),
        ('{"tlsverify": 1}', "it can only be true"),
        ('{"registry-mirrors": ["https://x"]}', "hosts.toml"),
        ('{"no-such-key": 1}', "no such setting"),
        ('{"hosts": "unix:///x"}', "no list of texts"),
        ('{"storage-driver": 3}', "it is no text"),
        ('{"hosts": ["unix:///x"], "hosts": []}', "hosts"),
        ("[" * 10000, "daemon.json"),
        ("", "daemon.json"),
    ],
)
def test_what_dockerds_file_asks_for_and_can_not_have_is_told(
    orlop: Environment, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    done = orlop("serve", "--config-file", str(file), check=False)
    assert done.code != 0 and words in done.stderr, done
    assert orlop.engine_pid() is None
    file.write_text('{"storage-driver": "vfs"}')
    twice = orlop("serve", "--config-file", str(file), "-s", "overlay2", check=False)
    assert "say it in one place" in twice.stderr
    assert "there is no file" in orlop("serve", "--config-file", f"{file}x", check=False).stderr


OWN = ("ca.pem", "server-cert.pem", "server-key.pem")


def refused(port: int, certificates: Path, plain: bool) -> None:
    """Expect that nothing is answered to a client without TLS, or without a certificate."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
        try:
            if not plain:
                context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
                stream = context.wrap_socket(stream, server_hostname="127.0.0.1")
                # More than any buffer holds: who closes without reading it resets what says why.
                stream.sendall(b"x" * (16 << 20))
                with pytest.raises(ssl.SSLError, match="certificate required"):
                    stream.recv(1)
                return
            stream.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"HTTP" not in stream.recv(1000)
        except ConnectionError:
            assert plain, "reset, and not told why"
        finally:
            stream.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-H", "tcp://127.0.0.1:0"], "TCP is served only to clients that show a certificate"),
        (["-H", "tcp://127.0.0.1:0", "--tlscert=x"], "belong together"),
        (["-H", "tcp://127.0.0.1:0", "--tlscacert=/x", "--tlscert=/x", "--tlskey=/x"], "certificates can't be used"),
        (["-H", "tcp://127.0.0.1:99999"], "is no port"),
        (["-H", "tcp://256.1.1.1:1"], "cannot serve on"),
        (["-H", "npipe:////x"], "it is no unix:///path"),
        (["-H", "unix://relative"], "not absolute"),
        (["-H", "unix:///nosuch/dir/s"], "No such file"),
    ],
)
def test_what_can_not_be_served_is_told(orlop: Environment, flags: list[str], words: str) -> None:
    done = orlop("serve", *flags, check=False)
    assert done.code != 0 and words in done.stderr, done
    assert orlop.engine_pid() is None


def test_another_path(orlop: Environment, tmp_path: Path) -> None:
    place = tmp_path / "s"
    with served(orlop, "-H", f"unix://{place}"):
        assert Api(place)("GET", "/_ping").body == b"OK"
        assert place.stat().st_mode & 0o777 == 0o600
        other = Environment(tmp_path / "other")
        try:
            assert "somebody listens there" in other("serve", "-H", f"unix://{place}", check=False).stderr
        finally:
            assert not other.close()
    assert not place.exists()


ACTIVATE = """
import os, socket, sys
for fd, place in zip((3, 4), sys.argv[1:3]):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    os.dup2(listener.fileno(), 10 + fd)
    os.set_inheritable(10 + fd, True)
os.closerange(3, 13)
for fd in (3, 4):
    os.dup2(10 + fd, fd)
    os.close(10 + fd)
    os.set_inheritable(fd, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_sockets_that_systemd_opened(orlop: Environment, tmp_path: Path) -> None:
    """As systemd.socket(5) starts a service: the engine takes its own socket and one more, and leaves both behind."""
    orlop.run.chmod(0o700)
    own, more = orlop.run / "docker.sock", tmp_path / "more"
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(READY_S_MAX)
        env = orlop.variables | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        argv = [sys.executable, "-c", ACTIVATE, str(own), str(more), str(COMMAND), "serve"]
        process = orlop.inside(lambda: subprocess.Popen(argv, env=env))
        try:
            assert notified.recv(100) == b"READY=1"
            for place in (own, more):
                assert Api(place)("GET", "/_ping").status == 200
            assert orlop("ps", "-q").stdout == ""
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(READY_S_MAX) == 0
        assert notified.recv(100) == b"STOPPING=1"
    assert own.exists() and more.exists()
    assert not (orlop.run / "engine.sock").exists()


def test_the_unit_files_are_understood(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs: systemd")
    for kind in ("", "-user"):
        for suffix in ("service", "socket"):
            text = (CHECKOUT / f"docs/systemd/orlop{kind}.{suffix}").read_text()
            (tmp_path / f"orlop.{suffix}").write_text(text.replace("/usr/bin/orlop", str(COMMAND)))
        argv = [analyze, "verify", "--man=no", *(["--user"] if kind else []), str(tmp_path / "orlop.socket")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if "orlop." in line]
        assert not told, told


def test_one_engine_has_one_data_directory(orlop: Environment) -> None:
    """Two that wrote the same records would take each other's containers for left behind.

    red: without rundir.claim_data the second one starts.
    """
    with tempfile.TemporaryDirectory(prefix="orlop-", dir="/tmp") as run:
        orlop("ps")
        refused = orlop("ps", check=False, env={"ORLOP_RUN": run})
        assert refused.code == 1 and f"another engine has {orlop.root}" in refused.stderr, refused
        pid = orlop.engine_pid()
        assert pid is not None
        orlop("engine", "stop")
        wait_until(lambda: not processes.is_alive(pid))
        assert orlop("ps", env={"ORLOP_RUN": run}).code == 0
        orlop("engine", "stop", env={"ORLOP_RUN": run})
        wait_until(lambda: not list(processes.with_environment("ORLOP_RUN", run)))
