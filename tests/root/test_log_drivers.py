"""Log drivers through the real command: what arrives at a syslog, fluentd or Graylog receiver, and what is kept.

The formats are decoded here by their specifications, not by our encoder. The container is never delayed by a receiver.
"""

import gzip
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support import processes
from support.certificates import CERTIFICATE, KEY

SCRIPT = "echo one; echo two >&2; printf 'no end'"
RECEIVE_S_MAX = 20


@pytest.fixture
def datagrams(orlop):
    """A UDP socket in the network namespace of the engine."""
    with orlop.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(RECEIVE_S_MAX)
        yield receiver


def listening(orlop, port=0):
    listener = orlop.inside(lambda: socket.create_server(("127.0.0.1", port)))
    listener.settimeout(RECEIVE_S_MAX)
    return listener, listener.getsockname()[1]


def received(connection, enough):
    """Return what came until enough(data)."""
    connection.settimeout(RECEIVE_S_MAX)
    data = b""
    while not enough(data):
        piece = connection.recv(65536)
        assert piece, f"the shipper went after {data!r}"
        data += piece
    return data


def test_syslog_over_udp_has_priority_tag_and_text(orlop, datagrams):
    port = datagrams.getsockname()[1]
    options = ("--log-opt", f"syslog-address=udp://127.0.0.1:{port}", "--log-opt", "tag={{.Name}}/{{.ID}}")
    options += ("--log-opt", "syslog-facility=local3")
    orlop("run", "-d", "--name", "web", "--log-driver", "syslog", *options, "host", "sh", "-c", SCRIPT)
    messages = [datagrams.recv(65536).decode() for _ in range(3)]
    short = orlop("ps", "-aq").stdout.strip()
    pattern = rf"<(\d+)>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d web/{short}\[\d+\]: (.*)\n"
    found = sorted(re.fullmatch(pattern, message).groups() for message in messages)
    assert found == sorted([("158", "one"), ("155", "two"), ("158", "no end")])
    assert orlop("logs", "web").stdout == "one\nno end", "the kept file is readable"


@pytest.mark.parametrize("form", ["rfc3164", "rfc5424", "rfc5424micro"])
def test_syslog_over_tcp_in_each_format(orlop, form):
    listener, port = listening(orlop)
    with listener:
        options = ("--log-opt", f"syslog-address=tcp://127.0.0.1:{port}", "--log-opt", f"syslog-format={form}")
        orlop("run", "-d", "--log-driver", "syslog", *options, "--log-opt", "tag=t", "host", "echo", "a < b & c")
        connection, _ = listener.accept()
        with connection:
            line = received(connection, lambda data: data.endswith(b"\n")).decode()
    heads = {
        "rfc3164": r"<30>[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S+ t\[\d+\]: ",
        "rfc5424": r"<30>1 \d{4}-\d\d-\d\dT[\d:]{8}Z \S+ t \d+ t - ",
        "rfc5424micro": r"<30>1 \d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z \S+ t \d+ t - ",
    }
    assert re.fullmatch(heads[form] + re.escape("a < b & c\n"), line), line


def test_syslog_over_a_unix_datagram_socket(orlop, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "s"))
        receiver.settimeout(RECEIVE_S_MAX)
        address = f"syslog-address=unixgram://{tmp_path}/s"
        orlop("run", "-d", "--log-driver", "syslog", "--log-opt", address, "host", "echo", "hello")
        assert receiver.recv(65536).endswith(b"]: hello\n")


def unpack(data, at=0):
    """Return (value, offset behind it) of MessagePack data: the kinds that the forward protocol needs."""
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first & 0xF0 == 0x80 or first in (0xDE, 0xDF):
        width = {0xDE: 2, 0xDF: 4}.get(first, 0)
        count = int.from_bytes(data[at : at + width], "big") if width else first & 0x0F
        at, out = at + width, {}
        for _ in range(count):
            key, at = unpack(data, at)
            out[key], at = unpack(data, at)
        return out, at
    if first & 0xF0 == 0x90:
        out = []
        for _ in range(first & 0x0F):
            value, at = unpack(data, at)
            out.append(value)
        return out, at
    if first & 0xE0 == 0xA0 or first in (0xD9, 0xDA, 0xDB):
        width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(first, 0)
        length = int.from_bytes(data[at : at + width], "big") if width else first & 0x1F
        at += width
        if at + length > len(data):
            raise IndexError
        return data[at : at + length].decode(), at + length
    if first == 0xD7:
        return struct.unpack(">bII", data[at : at + 9])[1:], at + 9
    width = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}[first]
    return int.from_bytes(data[at : at + width], "big"), at + width


def unpack_all(data):
    out, at = [], 0
    try:
        while at < len(data):
            value, at = unpack(data, at)
            out.append(value)
    except IndexError:
        pass
    return out


def test_fluentd_gets_whole_lines_with_labels_and_times(orlop):
    long = "x" * 100_000
    listener, port = listening(orlop)
    with listener:
        options = ("--log-opt", f"fluentd-address=127.0.0.1:{port}", "--log-opt", "fluentd-sub-second-precision=true")
        options += ("--log-opt", "labels=team", "-l", "team=red", "--log-opt", "tag=app.{{.Name}}")
        script = f"echo {long[:1]}; head -c 100000 /dev/zero | tr '\\0' x; echo; echo err >&2"
        orlop("run", "-d", "--name", "f", "--log-driver", "fluentd", *options, "host", "sh", "-c", script)
        connection, _ = listener.accept()
        with connection:
            data = received(connection, lambda data: len(unpack_all(data)) == 3)
    identity = orlop("inspect", "-f", "{{.Id}}", "f").stdout.strip()
    for tag, (seconds, nanoseconds), record in unpack_all(data):
        assert tag == "app.f"
        assert abs(seconds - time.time()) < 600 and nanoseconds < 10**9
        assert record["container_id"] == identity and record["container_name"] == "/f" and record["team"] == "red"
    records = [record for _, _, record in unpack_all(data)]
    assert sorted(len(one["log"]) for one in records) == [1, 3, 100_000], "a line of 100 kB is one record"
    assert {one["source"] for one in records} == {"stdout", "stderr"}


def test_fluentd_that_comes_late_gets_everything(orlop):
    listener, port = listening(orlop)
    listener.close()
    options = ("--log-opt", f"fluentd-address=127.0.0.1:{port}")
    started = time.monotonic()
    orlop("run", "--name", "f", "--log-driver", "fluentd", *options, "host", "sh", "-c", "seq 1000")
    assert time.monotonic() - started < 15, "the container waited for its receiver"
    late, _ = listening(orlop, port)
    with late:
        connection, _ = late.accept()
        with connection:
            data = received(connection, lambda data: len(unpack_all(data)) == 1000)
    assert [record["log"] for _, _, record in unpack_all(data)] == [str(n) for n in range(1, 1001)]


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf_over_udp_in_chunks(orlop, datagrams, compression):
    port = datagrams.getsockname()[1]
    options = ("--log-opt", f"gelf-address=udp://127.0.0.1:{port}", "--log-opt", f"gelf-compression-type={compression}")
    script = "head -c 9000 /dev/urandom | od -An -tx1 | tr -d ' \\n'"
    orlop("run", "-d", "--name", "g", "--log-driver", "gelf", *options, "host", "sh", "-c", script)
    pieces, count = {}, None
    while count is None or len(pieces) < count:
        datagram = datagrams.recv(65536)
        assert datagram[:2] == b"\x1e\x0f" and len(datagram) <= 1420
        pieces[datagram[10]], count = datagram[12:], datagram[11]
    message = b"".join(pieces[index] for index in range(count))
    unpacked = {"gzip": gzip.decompress, "zlib": zlib.decompress, "none": bytes}[compression](message)
    record = json.loads(unpacked)
    assert record["version"] == "1.1" and record["level"] == 6 and len(record["short_message"]) == 18_000
    assert (
        record["_container_name"] == "g" and record["_image_name"] == "host" and record["_command"].startswith("sh -c")
    )


def test_gelf_over_tcp_ends_messages_with_nul(orlop):
    listener, port = listening(orlop)
    with listener:
        address = f"gelf-address=tcp://127.0.0.1:{port}"
        orlop("run", "-d", "--log-driver", "gelf", "--log-opt", address, "host", "sh", "-c", "echo a; echo b")
        connection, _ = listener.accept()
        with connection:
            data = received(connection, lambda data: data.count(b"\0") == 2)
    assert [json.loads(part)["short_message"] for part in data.split(b"\0")[:-1]] == ["a", "b"]


class Collector:
    """An HTTP Event Collector in the engine's network namespace. answers: a status for each request, then 200."""

    def __init__(self, orlop, *answers, certificate=None):
        self.requests, self.connections = [], []
        told = list(answers)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers["Content-Length"]))
                self.requests.append((handler.path, dict(handler.headers), body))
                self.connections.append(handler.client_address)
                handler.send_response(told.pop(0) if told else 200)
                handler.send_header("Content-Length", "2")
                handler.end_headers()
                handler.wfile.write(b"{}")

            def log_message(handler, *_):
                pass

        self.server = orlop.inside(lambda: ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def got(self, number):
        ends = time.monotonic() + RECEIVE_S_MAX
        while len(self.requests) < number:
            assert time.monotonic() < ends, self.requests
            time.sleep(0.02)
        return self.requests


def test_splunk_gets_each_line_as_an_event(orlop):
    with Collector(orlop, 503, 400) as collector:
        options = f"splunk-url=http://{collector.address} splunk-token=secret splunk-index=main tag={{{{.Name}}}}"
        words = [word for option in options.split() for word in ("--log-opt", option)]
        orlop("run", "-d", "--name", "s", "--log-driver", "splunk", *words, "host", "sh", "-c", "echo a; echo b")
        requests = collector.got(4)
    events = [json.loads(body) for _, _, body in requests]
    lines = [event["event"]["line"] for event in events]
    assert lines[:2] == ["a", "a"], "what the collector had no time for is sent again, what it refuses is not"
    assert lines[2] == "orlop: 1 lines were too long to be sent, or refused" and lines[3] == "b"
    assert events[3]["event"]["tag"] == "s" and events[3]["index"] == "main"
    path, headers, _ = requests[0]
    assert path == "/services/collector/event/1.0" and headers["Authorization"] == "Splunk secret"
    assert len(set(collector.connections[1:])) == 1, "one connection for all"


def test_splunk_is_spoken_to_in_tls_and_packed(orlop, tmp_path):
    (tmp_path / "both.pem").write_text(CERTIFICATE + KEY)
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    with Collector(orlop, certificate=tmp_path / "both.pem") as collector:
        first = ("--log-driver", "splunk", "--log-opt", "splunk-token=x", "--log-opt")
        address = f"splunk-url=https://{collector.address}"
        gzipped = ("--log-opt", "splunk-gzip=true", "--log-opt", "splunk-format=raw", "--log-opt", "tag=")
        orlop("run", "-d", *first, address, "host", "echo", "for nobody whose name is not known")
        trusted = ("--log-opt", f"splunk-capath={tmp_path}/ca.pem")
        orlop("run", "-d", *first, address, *trusted, *gzipped, "host", "echo", "for the one")
        ((_, headers, body),) = collector.got(1)
    end_shippers(orlop)
    assert headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["event"].endswith(" for the one")


@pytest.mark.parametrize("scheme", ["syslog-address=tcp+tls", "fluentd-address=tls"])
def test_what_asks_for_tls_is_not_sent_in_plain(orlop, scheme):
    listener, port = listening(orlop)
    with listener:
        driver = scheme.partition("-")[0]
        option = f"{scheme}://127.0.0.1:{port}"
        orlop("run", "-d", "--log-driver", driver, "--log-opt", option, "host", "echo", "a secret")
        connection, _ = listener.accept()
        with connection:
            assert received(connection, lambda data: len(data) >= 3)[:2] == b"\x16\x03", "a client's hello of TLS"
    end_shippers(orlop)


def end_shippers(orlop):
    """End those that nobody will ever take anything from: they would try for as long as they may."""
    for pid in shippers(orlop):
        os.kill(pid, signal.SIGKILL)


def test_a_receiver_that_takes_nothing_delays_nothing(orlop):
    listener, port = listening(orlop)
    with listener:
        options = ("--log-opt", f"fluentd-address=127.0.0.1:{port}", "--log-opt", "cache-max-size=1m")
        # More than all buffers of the connection: it would stand still if the container waited for it.
        done = orlop(
            "run", "--log-driver", "fluentd", *options, "host", "sh", "-c", "seq 3000000 | tail -n 1000000; echo end"
        )
        assert done.stdout.endswith("\nend\n")


def shippers(orlop):
    return [pid for pid in orlop.processes() if "log shipper" in processes.title(pid)]


def wait_until(condition, what):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def test_a_shipper_that_is_killed_is_followed_by_another_that_goes_on(orlop):
    listener, port = listening(orlop)
    script = "for i in 1 2 3; do read x; echo $x; done; exit 5"
    options = ("--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}")
    orlop("run", "-d", "-i", "--name", "c", *options, "--log-opt", "tag=t", "host", "sh", "-c", script)
    (directory,) = (orlop.root / "containers").iterdir()

    def is_noted(count):
        return (directory / "log.shipped").read_text().split()[3:4] == [str(count)]

    def say(attached, word):
        attached.stdin.write(word + b"\n")
        attached.stdin.flush()
        connection, _ = listener.accept()  # each shipper has a connection of its own
        with connection:
            return received(connection, lambda data: data.endswith(word + b"\n"))

    with listener, orlop.popen("attach", "c", stdin=subprocess.PIPE) as attached:
        got = b""
        for count, word in enumerate((b"first", b"second"), 1):
            got += say(attached, word)
            wait_until(lambda count=count: is_noted(count), "it is noted")
            (pid,) = shippers(orlop)
            processes.kill(pid, processes.start_time(pid))
            wait_until(lambda pid=pid: shippers(orlop) not in ([], [pid]), "another one comes")
        got += say(attached, b"third")
        assert attached.wait(60) == 5
    assert [line.rpartition(b" ")[2] for line in got.splitlines()] == [b"first", b"second", b"third"]
    wait_until(lambda: not shippers(orlop), "it ends with its container")


def test_why_tells_of_output_that_no_receiver_took(orlop):
    listener, port = listening(orlop)
    listener.close()
    options = ("--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}")
    orlop("run", "--name", "c", *options, "host", "seq", "7")
    wait_until(lambda: not shippers(orlop), "it gives up")
    told = orlop("why", "c").stdout
    assert "7 lines of its output did not reach syslog: Connection refused" in told


def test_local_is_compressed_and_read_back_whole(orlop):
    options = ("--log-opt", "max-size=64k", "--log-opt", "max-file=40")
    orlop("run", "--name", "c", "--log-driver", "local", *options, "host", "seq", "20000")
    (directory,) = (orlop.root / "containers").iterdir()
    rotated = [path.name for path in directory.iterdir() if path.name.startswith("log.json.")]
    assert len(rotated) > 5 and all(name.endswith(".gz") for name in rotated)
    numbers = [str(number) for number in range(1, 20001)]
    assert orlop("logs", "c").stdout.split() == numbers
    assert orlop("logs", "--tail", "5000", "c").stdout.split() == numbers[-5000:]
    stamp = orlop("logs", "-t", "--tail", "3000", "c").stdout.split()[0]
    since = orlop("logs", "--since", stamp, "c").stdout.split()
    assert since == numbers[-len(since) :] and len(since) >= 3000


def test_none_keeps_nothing_and_says_so(orlop):
    orlop("run", "--name", "c", "--log-driver", "none", "host", "echo", "x")
    refused = orlop("logs", "c", check=False)
    assert refused.code == 1 and "configured logging driver does not support reading" in refused.stderr
    assert not list(orlop.root.glob("containers/*/log.json"))


def test_details_and_nine_digits(orlop):
    options = ("--log-opt", "labels=a,b", "--log-opt", "env=E", "--log-opt", "tag={{.Name}}")
    orlop("run", "--name", "c", "-l", "b=x y", "-l", "a=1", "-e", "E=v", *options, "host", "echo", "line")
    assert orlop("logs", "--details", "c").stdout == "E=v,a=1,b=x%20y,tag=c line\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z line\n", orlop("logs", "-t", "c").stdout)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--log-driver", "splunkk"), "no log driver named 'splunkk' is registered"),
        (("--log-opt", "nope=1"), "unknown log opt 'nope' for json-file log driver"),
        (("--log-opt", "max-size=lots"), "invalid size: 'lots'"),
        (("--log-opt", "max-file=0"), "invalid value for max-file"),
        (("--log-opt", "mode=perhaps"), "logging mode 'perhaps' not supported"),
        (("--log-opt", "tag={{.Nope}}"), "no field .Nope"),
        (("--log-opt", "tag={{if .Name}}x"), "holds more than fields"),
        (("--log-driver", "syslog", "--log-opt", "syslog-facility=moon"), "invalid syslog facility"),
        (("--log-driver", "syslog", "--log-opt", "syslog-format=x"), "Invalid syslog format"),
        (("--log-driver", "syslog", "--log-opt", "syslog-address=ftp://x:1"), "unsupported scheme"),
        (("--log-driver", "gelf"), "gelf-address is a required parameter"),
        (("--log-driver", "gelf", "--log-opt", "gelf-address=udp://host"), "is not HOST:PORT"),
        (("--log-driver", "splunk", "--log-opt", "splunk-url=http://x"), "splunk: splunk-token is expected"),
        (
            ("--log-driver", "splunk", "--log-opt", "splunk-token=x", "--log-opt", "splunk-url=http://x/y"),
            "splunk: expected format scheme://dns_name_or_ip:port for splunk-url",
        ),
        (("--log-driver", "none", "--log-opt", "max-size=1m"), "unknown log opt 'max-size' for none"),
    ],
)
def test_what_is_refused_before_anything_is_made(orlop, words, text):
    refused = orlop("run", *words, "host", "true", check=False)
    assert refused.code == 125 and text in refused.stderr and "Next: " in refused.stderr
    assert orlop("ps", "-aq").stdout == ""


def test_the_budget_of_all_containers_takes_the_oldest_first(orlop):
    env = {"ORLOP_LOG_BUDGET": "700000"}
    options = ("--log-opt", "max-size=64k", "--log-opt", "max-file=20")
    orlop("run", "--name", "old", *options, "host", "seq", "6000", env=env)
    before = {path.name for path in orlop.root.glob("containers/*/log.json*")}
    assert len(before) > 4
    orlop("run", "--name", "new", *options, "host", "seq", "8000", env=env)
    sizes = sum(path.stat().st_size for path in orlop.root.glob("containers/*/log.json*"))
    assert sizes <= 700_000 + 2 * 65536
    assert orlop("logs", "--tail", "1", "new").stdout == "8000\n"
    assert orlop("logs", "old").stdout.split()[0] != "1", "the oldest lines of all went first"
    assert orlop("logs", "new").stdout.split()[0] == "1"
    assert os.path.exists(next(orlop.root.glob("containers/*/log.json")))


def test_what_is_removed_of_a_log_is_an_event(orlop):
    """P04. Also what went while no engine was there: the next one tells.

    Red: without `notices.attend` the first is never told; without `take` in trims.attend the second.
    """
    script = "seq 200000; until [ -e /go ]; do sleep 0.05; done; seq 200000"
    limits = ("--log-opt", "max-size=100k", "--log-opt", "max-file=2")
    orlop("run", "-d", "--name", "c", "--network", "none", *limits, "host", "sh", "-c", script)
    pid = int(orlop("inspect", "-f", "{{.State.Pid}}", "c").stdout)

    def told():
        lines = orlop(
            "events", "--since", "1", "--until", "0s", "--filter", "event=log.trim", "--format", "json"
        ).stdout
        return [json.loads(line) for line in lines.splitlines()]

    wait_until(told, "an event")
    (first, *_) = told()
    assert first["Type"] == "container" and first["Actor"]["Attributes"]["name"] == "c"
    assert int(first["Actor"]["Attributes"]["bytes"]) >= 90_000
    engine = orlop.engine_pid()
    processes.kill(engine, processes.start_time(engine))
    wait_until(lambda: orlop.engine_pid() is None, "its end")
    Path(f"/proc/{pid}/root/go").touch()
    wait_until(lambda: os.listdir(orlop.root / "trimmed"), "a note")
    wait_until(lambda: not processes.is_alive(pid), "the end")
    before = sum("log.trim" in line for line in (orlop.root / "events.jsonl").read_text().splitlines())
    wait_until(lambda: len(told()) > before, "another event")
    assert os.listdir(orlop.root / "trimmed") == []
    kept = sum(path.stat().st_size for path in orlop.root.glob("containers/*/log.json*"))
    removed = sum(int(one["Actor"]["Attributes"]["bytes"]) for one in told())
    assert kept <= 2 * 100_000 * 1.1 and removed + kept > 10_000_000
