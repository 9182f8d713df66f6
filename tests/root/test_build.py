"""`orlop build` through the real command and kernel: steps, the cache and why it missed, mounts, failures, deaths."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from support import processes
from support.engine import Environment

KILLS = int(os.environ.get("ORLOP_TEST_KILLS", "3"))


@pytest.fixture
def context(tmp_path):
    place = tmp_path / "context"
    place.mkdir()
    return place


def build(orlop, context, text, *options, **more):
    (context / "Dockerfile").write_text(text)
    return orlop("build", "-q", *options, context, **more)


def run(orlop, image, *command):
    return orlop("run", "--rm", "--network=none", image, *command).stdout


def image_id(finished):
    return finished.stdout.strip()


def missed(orlop, context, *options):
    """Build once more; return {step: what had changed} of the steps that were made anew."""
    told = json.loads(orlop("build", "--why", "--format=json", *options, context).stdout)
    return {one["step"]: one["changed"] for one in told}


# -- what is made -----------------------------------------------------------------------------------------------------


def test_stages_heredocs_and_configuration(orlop, context):
    (context / "a").write_text("a\n")
    build(
        orlop,
        context,
        "ARG BASE=host\nFROM $BASE AS one\nRUN echo one > /one\n"
        "FROM host AS unused\nRUN false\n"
        "FROM host\nENV X=1\nWORKDIR /w\nCOPY --from=one /one .\nCOPY a b\n"
        "RUN <<EOF\nset -e\ncat one b > all\nEOF\n"
        "COPY <<EOF /here\n$X\nEOF\n"
        'CMD ["cat", "all", "/here"]\n',
        "-t",
        "made",
    )
    assert run(orlop, "made") == "one\na\n1\n"
    config = json.loads(orlop("inspect", "made").stdout)[0]["Config"]
    assert config["WorkingDir"] == "/w" and "X=1" in config["Env"]


def test_the_same_from_another_place_at_another_time_by_another_umask(orlop, context, tmp_path):
    text = "FROM host\nCOPY . /c/\nWORKDIR /w\nRUN date > /dev/null; echo made > f; mkdir d; ln -s f l\n"
    (context / "a").write_text("a")
    first = image_id(build(orlop, context, text))
    other = tmp_path / "other" / "place"
    other.mkdir(parents=True)
    (other / "a").write_text("a")
    os.utime(other / "a", (1, 1))
    os.utime(other / "a", (2e9, 2e9))
    (other / "Dockerfile").write_text(text)
    second = orlop("build", "-q", "--no-cache", other, env={"TZ": "Asia/Tokyo"})
    assert image_id(second) == first
    assert image_id(orlop("build", "-q", "--no-cache", other, env={"SOURCE_DATE_EPOCH": "1000000000"})) != first


def test_the_same_by_another_engine_with_another_umask_of_another_s_files(orlop, context, tmp_path):
    text = "FROM host\nCOPY . /c/\nCOPY --parents d/e /p/\nWORKDIR /w\nRUN echo made > f; mkdir g; umask > u\n"
    (context / "d").mkdir()
    (context / "d/e").write_text("e")
    first = image_id(build(orlop, context, text))
    for path in (context, *context.rglob("*")):
        os.chown(path, 1234, 4321)
    other = Environment(tmp_path / "second")
    before = os.umask(0o077)
    try:
        second = other("build", "-q", context, env={"TZ": "America/Lima", "HOME": str(tmp_path), "USER": "somebody"})
    finally:
        os.umask(before)
        left = other.close()
    assert image_id(second) == first
    assert not left, left


def test_an_image_has_no_time_of_its_making(orlop, context):
    build(orlop, context, "FROM host\nRUN echo > /f\n", "-t", "x", "--build-arg", "SOURCE_DATE_EPOCH=1600000000")
    assert json.loads(orlop("inspect", "x").stdout)[0]["Created"] == "2020-09-13T12:26:40Z"
    assert run(orlop, "x", "stat", "-c", "%Y", "/f") == "1600000000\n"


def test_outputs(orlop, context, tmp_path):
    (context / "f").write_text("content")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY f /d/f\n")
    orlop("build", "-q", "-o", tmp_path / "local", context)
    assert (tmp_path / "local/d/f").read_text() == "content"
    orlop("build", "-q", "-o", f"type=tar,dest={tmp_path}/t.tar", context)
    listed = subprocess.run(["tar", "tf", tmp_path / "t.tar"], capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["./", "d/", "d/f"]
    orlop("build", "-q", "-t", "x:1", "-o", f"type=oci,dest={tmp_path}/o.tar", context)
    assert "index.json" in subprocess.run(["tar", "tf", tmp_path / "o.tar"], capture_output=True, text=True).stdout
    orlop("build", "-q", "--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "meta", context)
    assert json.loads((tmp_path / "meta").read_text())["containerimage.config.digest"] == (tmp_path / "id").read_text()


def test_contexts_from_standard_input(orlop, context):
    text = "FROM host\nRUN echo hi > /f\n"
    orlop("build", "-q", "-t", "x", "-", input=text)
    assert run(orlop, "x", "cat", "/f") == "hi\n"
    (context / "a").write_text("in the archive")
    (context / "Dockerfile").write_text("FROM host\nCOPY a /\n")
    for option in ("cf", "czf"):
        packed = subprocess.run(["tar", option, "-", "-C", context, "."], capture_output=True, check=True).stdout
        orlop("build", "-q", "-t", "y", "-", input=packed)
        assert run(orlop, "y", "cat", "/a") == "in the archive"


def test_named_contexts_and_ignored_files(orlop, context, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/m").write_text("more")
    for name in ("a", "b.log", "d/c", "d/keep.log"):
        (context / name).parent.mkdir(exist_ok=True)
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("*.log\n**/*.log\n!d/keep.log\nDockerfile\n")
    text = "FROM host\nCOPY --from=more m /\nCOPY . /c\n"
    build(orlop, context, text, "-t", "x", "--build-context", f"more={tmp_path / 'more'}")
    assert (
        run(orlop, "x", "sh", "-c", "cat /m; find /c -type f | sort")
        == "more/c/.dockerignore\n/c/a\n/c/d/c\n/c/d/keep.log\n"
    )


# -- the cache --------------------------------------------------------------------------------------------------------


def test_why_names_what_changed(orlop, context):
    (context / "src").mkdir()
    (context / "src/app").write_text("one")
    (context / "src/other").write_text("other")
    text = "FROM host\nARG V=1\nENV E=1\nCOPY src /src\nRUN echo $V > /v\n"
    build(orlop, context, text)
    assert missed(orlop, context) == {}
    os.utime(context / "src/app")  # a time is no content
    assert missed(orlop, context) == {}
    (context / "src/app").write_text("two")
    told = missed(orlop, context)
    assert [reason.partition(" changed")[0] for reason in told["[2/3] COPY src /src"]][-1] == "source 0 /src"
    assert any(reason.startswith("file /src/app changed") for reason in told["[2/3] COPY src /src"])
    (context / "src/other").chmod(0o755)
    assert any("file /src/other changed" in reason for reason in missed(orlop, context)["[2/3] COPY src /src"])
    (context / "src/new").write_text("")
    assert any("file /src/new is new" in reason for reason in missed(orlop, context)["[2/3] COPY src /src"])
    told = missed(orlop, context, "--build-arg", "V=2")
    assert list(told) == ["[3/3] RUN echo $V > /v"] or list(told) == ["[3/3] RUN echo 2 > /v"]
    assert [reason.partition(" changed")[0] for (reason,) in told.values()] == ["variable V"]


def test_why_names_each_other_input(orlop, context):
    orlop("tag", "host", "base:1")
    (context / "a").write_text("a")
    (context / "b").write_text("b")
    ignore = context / "Dockerfile.dockerignore"
    ignore.write_text("b\nDockerfile*\n")
    mount = "--mount=type=cache,id=one,target=/c"
    text = f"FROM base:1\nENV E=1\nCOPY . /all\nRUN {mount} true\nRUN echo $E > /e\n"
    build(orlop, context, text)

    def reasons(changed, *options):
        """Return why the first step is made anew that is, without the place and the values; build as it was then."""
        (context / "Dockerfile").write_text(changed)
        step, told = next(iter(missed(orlop, context, *options).items()))
        build(orlop, context, text)
        return step.split()[1], [reason.partition(" changed")[0] for reason in told]

    assert reasons(text.replace("E=1", "E=2")) == ("RUN", ["variable E"])
    assert reasons(text.replace("/e", "/f")) == ("RUN", ["command"])
    assert reasons(text.replace("id=one", "id=two")) == ("RUN", ["mount 0 id"])
    assert reasons(text.replace("id=one", "id=one,uid=5")) == ("RUN", ["mount 0 uid"])
    assert reasons(text.replace("FROM base:1\n", "FROM base:1\nUSER 0\n")) == ("RUN", ["user"])
    assert reasons(text.replace("RUN echo", "RUN --network=none echo")) == ("RUN", ["network"])
    assert reasons(text.replace("COPY", "COPY --chown=1")) == ("COPY", ["owner"])
    ignore.write_text("Dockerfile*\n")
    assert reasons(text) == ("COPY", ["file /b is new", "source 0 /"])
    build(orlop, context, "FROM host\nRUN echo moved > /moved\n", "-t", "base:1")
    assert reasons(text)[1][0] == "base image or earlier step"


def test_what_does_not_count_and_what_does(orlop, context):
    (context / "s").write_text("one")
    text = "FROM host\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null; echo x > /x\n"
    first = image_id(build(orlop, context, text, "--secret", f"id=s,src={context / 's'}"))
    (context / "s").write_text("two")
    assert missed(orlop, context, "--secret", f"id=s,src={context / 's'}") == {}
    assert image_id(build(orlop, context, text + "ENV A=1\n", "--secret", f"id=s,src={context / 's'}")) != first
    assert missed(orlop, context, "--no-cache", "--secret", f"id=s,src={context / 's'}")
    build(orlop, context, "FROM host AS a\nRUN echo 1\nFROM host AS b\nRUN echo 2\nCOPY --from=a /etc /e\n")
    told = missed(orlop, context, "--no-cache-filter", "b")
    assert told and all("[b " in step for step in told)


def test_an_equal_tree_ends_what_a_change_began(orlop, context):
    (context / "a").write_text("a")
    text = "FROM host\nRUN wc -c /etc/hostname > /dev/null; echo {} > /dev/null; echo same > /f\nRUN echo later > /g\n"
    build(orlop, context, text.format(1))
    (context / "Dockerfile").write_text(text.format(2))
    assert len(missed(orlop, context)) == 1  # the first RUN is another, what it leaves is not


def test_caches_are_listed_and_pruned(orlop, context):
    build(orlop, context, "FROM host\nRUN echo x > /x\nRUN --mount=type=cache,target=/c echo y > /c/y\n", "-t", "x")
    assert "RUN echo x > /x" in orlop("builder", "du").stdout
    assert "build-cache-" in orlop("volume", "ls").stdout
    orlop("builder", "prune", "-f")
    assert "RUN" not in orlop("builder", "du").stdout and "build-cache-" in orlop("volume", "ls").stdout
    assert run(orlop, "x", "cat", "/x") == "x\n"  # images keep what they need
    orlop("builder", "prune", "-af")
    assert "build-cache-" not in orlop("volume", "ls").stdout


def test_the_cache_is_pruned_down_to_what_may_be_used_and_must_be_free(orlop, context):
    steps = "".join(f"RUN head -c 100000 /dev/urandom > /f{number}\n" for number in range(4))
    build(orlop, context, f"FROM host\n{steps}")

    def left(*words):
        orlop("builder", "prune", "-f", *words)
        return orlop("builder", "du").stdout.count("RUN head")

    disk = os.statvfs(orlop.root)
    assert left("--max-used-space=10m") == left("--min-free-space=1") == 4
    assert left("--max-used-space=320k") == 3
    assert left("--max-used-space=1", "--reserved-space=210k") == 2
    assert left(f"--min-free-space={disk.f_blocks * disk.f_frsize}", "--keep-storage=110k") == 1
    assert left(f"--min-free-space={disk.f_blocks * disk.f_frsize}") == 0
    assert "invalid filter" in orlop("builder", "prune", "-f", "--filter", "types=regular", check=False).stderr


def test_what_a_filter_means_is_pruned_and_nothing_else(orlop, context):
    """Red: with a matcher that fits everything, the step goes with the first mount."""
    mounts = "".join(f"RUN --mount=type=cache,id={name},target=/c echo y > /c/y\n" for name in ("one", "two", "held"))
    build(orlop, context, f"FROM host\nRUN echo x > /x\n{mounts}")
    orlop("builder", "pin", "held")

    def left(*words):
        orlop("builder", "prune", "-f", *(word for text in words for word in ("--filter", text)))
        told = orlop("builder", "du").stdout
        return [name for name in ("cached mount one", "cached mount two", "mount held", "echo x") if name in told]

    everything = left("type=frontend")
    assert len(everything) == 4 and left("type=exec.cachemount", "description=other") == everything
    assert left("type=exec.cachemount", "description=cached mount one") == everything[1:]
    assert left("type=exec.cachemount", "until=1h") == left("inuse=true") == everything[1:]
    assert left("type=exec.cachemount") == ["mount held", "echo x"]
    assert left("type=regular") == ["mount held"]
    refused = orlop("builder", "prune", "-f", "--filter", "type=regular", "--keep-storage=1k", check=False)
    assert "a filter and a size don't go together" in refused.stderr


def test_what_the_cache_has_survives_a_collection_of_images(orlop, context):
    build(orlop, context, "FROM host\nRUN echo x > /x\nRUN echo y > /y\n", "-t", "x")
    orlop("rmi", "x")
    orlop("image", "prune", "-f")
    assert missed(orlop, context) == {}
    orlop("build", "-q", "-t", "x", context)
    assert run(orlop, "x", "cat", "/y") == "y\n"


# -- mounts -----------------------------------------------------------------------------------------------------------


def test_mounts_of_every_kind(orlop, context):
    (context / "in").write_text("from the context")
    (context / "Dockerfile").write_text(
        "FROM host AS made\nRUN echo from a stage > /made\n"
        "FROM host\n"
        "RUN --mount=type=bind,target=/b cat /b/in > /bind; ! touch /b/x\n"
        "RUN --mount=type=bind,from=made,source=/made,target=/m cat /m > /stage\n"
        "RUN --mount=type=bind,target=/b,rw echo changed > /b/in; cat /b/in > /rw\n"
        "RUN --mount=type=bind,target=/b cat /b/in > /again\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 > /tmpfs; echo x > /t/f\n"
        "RUN --mount=type=cache,target=/c,id=k echo cached > /c/f\n"
        "RUN --mount=type=cache,target=/c,id=k,ro cat /c/f > /cache\n"
        "RUN --mount=type=cache,target=/c,id=other ls /c > /empty\n"
        "RUN --mount=type=secret,id=s,env=S,target=/s,mode=0440,uid=5 stat -c '%a %u' /s > /secret; [ -n \"$S\" ]\n"
        "RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n"
    )
    orlop("build", "-q", "-t", "x", "--secret", "id=s,env=SECRET", context, env={"SECRET": "xq7-hush-xq7"})
    look = "cat /bind /stage /rw /again /cache /empty /secret; ls -d /b /m /t /c /s 2>&1; true"
    shown = run(orlop, "x", "sh", "-c", look)
    lines = shown.splitlines()
    assert lines[0] == "from the contextfrom a stage" and lines[1:4] == ["changed", "from the contextcached", "440 5"]
    assert all("No such file" in line for line in lines[4:])
    assert (
        b"xq7-hush-xq7" not in subprocess.run(["grep", "-ra", "xq7-hush-xq7", orlop.root], capture_output=True).stdout
    )


def test_a_required_secret_is_asked_for(orlop, context):
    text = "FROM host\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n"
    failed = build(orlop, context, text, check=False)
    assert failed.code == 1 and "secret s: not found" in failed.stderr and "--secret id=s" in failed.stderr


def test_an_agent_is_reached(orlop, context, tmp_path):
    import socket
    import threading

    place = f"/tmp/orlop-agent-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()

    def serve():
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(64) == b"who?\n"
            peer.sendall(b"agent\n")

    thread = threading.Thread(target=serve)
    thread.start()
    text = 'FROM host\nRUN --mount=type=ssh [ -S "$SSH_AUTH_SOCK" ] && stat -c %a $SSH_AUTH_SOCK > /mode\n'
    try:
        build(orlop, context, text, "-t", "x", "--ssh", f"default={place}")
        assert run(orlop, "x", "cat", "/mode") == "600\n"
    finally:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(place)
            one.sendall(b"who?\n")
            one.recv(9)
        thread.join()
        listener.close()
        os.unlink(place)


# -- isolation --------------------------------------------------------------------------------------------------------


def test_steps_are_contained_and_unlisted(orlop, context):
    text = (
        "FROM host\nRUN env | cut -d= -f1 | sort > /env; grep CapEff /proc/self/status > /caps;"
        " grep Seccomp: /proc/self/status >> /caps\nRUN --network=none ls /sys/class/net > /net\n"
    )
    build(orlop, context, text, "-t", "x", env={"LEAK": "from the client"})
    assert set(run(orlop, "x", "cat", "/env").split()) <= {"HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}
    plain = orlop("run", "--rm", "host", "sh", "-c", "grep CapEff /proc/self/status").stdout
    assert plain in run(orlop, "x", "cat", "/caps") and "Seccomp:\t2" in run(orlop, "x", "cat", "/caps")
    assert run(orlop, "x", "cat", "/net").split() == ["lo"]
    assert orlop("ps", "-aq").stdout == ""


def test_what_the_user_did_not_allow_is_refused(orlop, context):
    for instruction, entitlement in {
        "RUN --security=insecure true": "security.insecure",
        "RUN --network=host true": "network.host",
    }.items():
        failed = build(orlop, context, f"FROM host\n{instruction}\n", check=False)
        assert failed.code == 1 and f"--allow {entitlement}" in failed.stderr
        build(orlop, context, f"FROM host\n{instruction}\n", "--allow", entitlement)


# -- failures, deaths -------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there(orlop, context):
    text = "FROM host\nRUN --device=vendor.example/one=a,required echo x > /x\n"
    assert 'device "vendor.example/one=a" is not registered' in build(orlop, context, text, check=False).stderr
    assert not build(orlop, context, text.replace(",required", "")).code


def test_a_failing_step_can_be_entered(orlop, context):
    text = "FROM host\nRUN echo before > /before\nRUN echo kept > /a; seq 1 100; false\n"
    failed = build(orlop, context, text, check=False)
    assert failed.code == 1 and "exit code: 1" in failed.stderr
    shown = failed.stderr.splitlines()
    assert "100" in shown and "61" in shown and "60" not in shown
    (line,) = [line for line in orlop("builder", "ls").stdout.splitlines() if "failed" in line]
    name = line.split()[0]
    assert orlop("builder", "logs", name).stdout.split() == [str(number) for number in range(1, 101)]
    assert orlop("build", "shell", name, "cat", "/a", "/before").stdout == "kept\nbefore\n"
    assert f"orlop build logs {name}@3" in failed.stderr
    before = orlop("build", "shell", f"{name}@step3-before", "ls", "/a", check=False)
    assert before.code == 2 and "No such file" in before.stderr
    assert orlop("build", "shell", f"{name}@2", "cat", "/before").stdout == "before\n"
    silent = build(orlop, context, "FROM host\nRUN mkdir /a; false\n", check=False)
    assert "it wrote nothing; look at what it left: orlop build shell " in silent.stderr


def test_a_failing_step_is_entered_at_once_and_tried_again(orlop, context, terminal):
    text = "FROM host\nRUN head -c 8 /dev/urandom | od -A n -t x1 >/first\nRUN export X=1; mkdir /a; %s\n"
    (context / "Dockerfile").write_text(text % "exit 7")
    session = terminal("build", "--network=none", "--on-error=shell", context, columns=200)
    session.expect("You are where it failed (exit code 7)")
    session.send("ls -d /a && echo in$((1 + 1)) $(cat /first)\n")
    first = session.expect("in2 ") and session.expect("\r\n").strip()
    session.send("exit 75\n")
    session.expect("You are where it failed (exit code 7)")  # the same step, by itself: what is before it was cached
    session.send("echo again$((1 + 1)) $(cat /first)\n")
    assert session.expect("again2 ") and session.expect("\r\n").strip() == first
    (context / "Dockerfile").write_text(text % "true")
    session.send("exit 75\n")
    session.expect("Successfully built ")
    image = session.expect("\r\n").strip().decode()
    assert session.wait() == 0
    assert run(orlop, image, "cat", "/first").strip().encode() == first
    assert run(orlop, image, "ls", "-d", "/a") == "/a\n"


def test_all_of_fifty_megabytes_of_output_is_kept(orlop, context):
    """P35: nothing is clipped, and what is long lies there compressed. Red: with any bound in journal.StepLog.write the
    digests differ; without a compressor in journal._Kept the log is as large as the output."""
    text = "FROM host\nRUN seq -f %049.0f 1000000 | tee /all; sha256sum </all >/sum; rm /all\n"
    image = image_id(build(orlop, context, text))
    name = orlop("builder", "ls").stdout.splitlines()[1].split()[0]
    for words in (
        ("builder", "logs", "--step", "2"),
        ("build", "logs", name, "--step=2"),
        ("build", "logs", f"{name}@2"),
    ):
        with orlop.popen(*words, stdout=subprocess.PIPE) as told:
            digest = hashlib.file_digest(told.stdout, "sha256").hexdigest()
        assert run(orlop, image, "cat", "/sum").split()[0] == digest
    assert (orlop.root / f"build/builds/{name}/2.log.zst").stat().st_size < 5_000_000


def test_cache_mounts_are_listed_pinned_and_carried_to_another_engine(orlop, context, tmp_path):
    text = "FROM host\nRUN --mount=type=cache,id=%s,target=/c echo x >> /c/n; cat /c/n > /n\n"
    for name in ("kept", "gone"):
        build(orlop, context, text % name)
    (volume,) = orlop("builder", "pin", "kept").stdout.split()
    told = orlop("builder", "du").stdout
    assert "cached mount kept (pinned)" in told and "cached mount gone\n" in told
    orlop("volume", "export", volume, "-o", tmp_path / "v.tar")
    orlop("builder", "prune", "-af")
    assert orlop("volume", "ls", "-q").stdout.split() == [volume]
    orlop("builder", "unpin", volume)
    orlop("builder", "prune", "-af")
    assert not orlop("volume", "ls", "-q").stdout
    assert "there is no cache mount kept" in orlop("builder", "pin", "kept", check=False).stderr
    orlop("volume", "import", volume, tmp_path / "v.tar")
    again = image_id(build(orlop, context, text % "kept"))
    assert run(orlop, again, "cat", "/n") == "x\nx\n"
    assert "invalid filter" in orlop("builder", "prune", "-f", "--filter", "types=regular", check=False).stderr


def test_a_step_is_entered_with_what_was_mounted_on_it(orlop, context, tmp_path):
    (context / "f").write_text("of the context")
    (tmp_path / "token").write_text("sesame-sesame")
    mounts = [
        "type=secret,id=s", "type=cache,id=c,target=/c", "type=tmpfs,target=/t", "type=bind,from=other,target=/o",
        "type=bind,source=f,target=/f",
    ]  # fmt: skip
    words = " ".join(f"--mount={mount}" for mount in mounts)
    text = (
        f"FROM host AS other\nRUN echo other > /other\nFROM host\nRUN {words} <<EOF\necho cached > /c/x\nfalse\nEOF\n"
    )
    secret = ["--secret", f"id=s,src={tmp_path / 'token'}"]
    failed = build(orlop, context, text, *secret, check=False)
    assert failed.code == 1
    name = _newest_build(orlop)
    look = ["cat", "/c/x", "/o/other", "/f"]
    assert orlop("build", "shell", *secret, name, *look).stdout == "cached\nother\nof the context"
    assert orlop("builder", "shell", *secret, name, "cat", "/run/secrets/s").stdout == "sesame-sesame"
    assert orlop("builder", "shell", name, "cat", "/run/secrets/s").stdout == "", "nobody gave it now"
    assert orlop("builder", "shell", name, "stat", "-f", "-c", "%T", "/t").stdout == "tmpfs\n"
    record = (orlop.root / "build/builds" / name / "build.json").read_text()
    assert "sesame" not in record
    before = orlop("builder", "shell", f"{name}@4-before", *look)
    assert before.stdout == "cached\nother\nof the context"
    until(lambda: not list(orlop.run.glob("build-*")))
    until(lambda: len(list((orlop.root / "build/builds").iterdir())) == 1)
    until(lambda: len(list((orlop.root / "snapshots/active").iterdir())) == 1)  # that of the failed step alone


def _newest_build(orlop):
    return orlop("builder", "ls").stdout.splitlines()[1].split()[0]


def test_an_interrupted_build_stops_its_command(orlop, context):
    (context / "Dockerfile").write_text("FROM host\nRUN echo begun; exec sleep 4321\n")
    env = orlop.variables
    # Who starts the tests in the background of a shell has them ignore SIGINT, and all that they start.
    command = ["env", "--default-signal=INT", Path(__file__).parents[2] / "orlop"]
    started = orlop.inside(
        lambda: subprocess.Popen([*command, "build", "--progress=plain", context], env=env, stderr=subprocess.PIPE)
    )
    for line in started.stderr:
        if b"begun" in line and b"RUN" not in line:
            break
    started.send_signal(signal.SIGINT)
    started.wait(60)
    started.stderr.close()
    until(lambda: not any(b"4321" in processes.read(pid, "cmdline") for pid in processes.pids()))
    until(lambda: not list((orlop.root / "snapshots/active").iterdir()))


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.mark.parametrize("moment", range(KILLS))
def test_a_killed_engine_loses_no_cache_and_leaves_nothing(orlop, context, moment):
    text = "FROM host\n" + "".join(f"RUN echo {number} > /f{number}; sleep 0.05\n" for number in range(5))
    (context / "Dockerfile").write_text(text)
    orlop("info")
    started = orlop.inside(
        lambda: subprocess.Popen(
            [Path(__file__).parents[2] / "orlop", "build", "-q", context],
            env=orlop.variables,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    )
    cache = orlop.root / "build/cache"
    until(lambda: (cache.is_dir() and len(list(cache.glob("*.json"))) > moment) or started.poll() is not None)
    pid = json.loads(orlop("info", "--format", "json").stdout)["Pid"]
    os.kill(pid, signal.SIGKILL)
    started.wait(60)
    made = len(list(cache.glob("*.json")))
    told = json.loads(orlop("build", "--why", "--format=json", context).stdout)
    assert len(told) <= 5 - made, "a step that was done was made again"
    assert not list((orlop.root / "snapshots/active").iterdir())
    assert not list((orlop.root / "containers").iterdir())
    found = json.loads(orlop("system", "fsck", "--format", "json", check=False).stdout or "[]")
    assert found == []


# -- secrets ----------------------------------------------------------------------------------------------------------

LEAKS = {
    "copied, in '/leak' of the step RUN --mount": "RUN --mount=type=secret,id=s cp /run/secrets/s /leak",
    "in a file": "RUN --mount=type=secret,id=s (seq 1 9; cat /run/secrets/s; echo x) > /opt",
    "removed later": "RUN --mount=type=secret,id=s cp /run/secrets/s /leak\nRUN rm /leak",
    "encoded": "RUN --mount=type=secret,id=s (printf ab; cat /run/secrets/s) | base64 > /leak",
    "linked to": "RUN --mount=type=secret,id=s,env=S ln -s $S /leak",
    "argument, in step 2 of the image's history, ARG": "ARG A\nRUN echo $A > /dev/null",
    "variable, in the variable 'B' of": "ARG A\nENV B=$A",
    "label, in the label 'c' of": "ARG A\nLABEL c=$A",
}


def test_an_image_carries_no_secret_away(orlop, context, tmp_path):
    secret = "q8Zt-correct-horse-battery"
    (tmp_path / "s").write_text(secret)
    options = ["-t", "x", "--secret", f"id=s,src={tmp_path / 's'}", "--build-arg", f"A={secret}"]
    for how, lines in LEAKS.items():
        failed = build(orlop, context, f"FROM host\n{lines}\n", *options, check=False)
        assert failed.code == 1 and secret not in failed.stderr, how
        assert f"secret s is in {how.partition(', in ')[2]}" in failed.stderr, (how, failed.stderr)
        assert "x" not in [line.split()[0] for line in orlop("images").stdout.splitlines()[1:]]
    build(orlop, context, f"FROM host\n{next(iter(LEAKS.values()))}\n", *options, "--secrets-policy=off")


def test_a_layer_that_stores_files_once_more_is_told_and_squash_mends_it(orlop, context, tmp_path):
    big = os.urandom(11_000_000)
    (context / "big").write_bytes(big)
    (context / "tmp").write_bytes(big)
    text = "FROM host\nCOPY big tmp /app/\nRUN chown -R 1:1 /app && rm /app/tmp\n"
    done = build(orlop, context, text.replace("RUN", "RUN echo x > /app/big; "), "--progress=plain")
    assert "LayerStoresAgain" not in done.stderr, "it was written anew"
    (context / "Dockerfile").write_text(text)
    told = orlop("build", "-t", "fat", context).stderr
    assert (
        "LayerStoresAgain: RUN chown -R 1:1 /app && rm /app/tmp stores 11.0 MB once more" in told and "(line 3)" in told
    )
    assert "LayerStoresAgain" not in orlop("build", context).stderr, "what is known is not told again"
    orlop("build", "-q", "--squash", "-t", "thin", context)
    size = {name: json.loads(orlop("inspect", name).stdout)[0]["Size"] for name in ("host", "fat", "thin")}
    assert size["thin"] - size["host"] < 1.02 * len(big) and size["fat"] - size["host"] > 3 * len(big)
    look = ("sh", "-c", "find /app -exec stat -c '%n %A %u %g %s %Y' {} +; sha256sum /app/*")
    assert run(orlop, "thin", *look) == run(orlop, "fat", *look)


def test_verify_names_the_first_file_that_differs(orlop, context):
    build(orlop, context, "FROM host\nRUN echo same > /f; mkdir /d\n", "--verify", "-t", "good")
    failed = build(orlop, context, "FROM host\nRUN date +%N > /x; echo same > /y\n", "--verify", check=False)
    assert failed.code == 1 and "/x differs" in failed.stderr and "RUN date" in failed.stderr
    failed = build(orlop, context, "FROM host\nRUN hostname > /h || cat /etc/hostname > /h\n", "--verify", check=False)
    assert failed.code == 1 and "/h differs" in failed.stderr


def test_what_a_killed_engine_left_of_a_build_is_swept(orlop, context, tmp_path):
    (tmp_path / "s").write_text("swept-away")
    text = "FROM host\nRUN --mount=type=secret,id=s,target=/s echo begun; exec sleep 5432\n"
    (context / "Dockerfile").write_text(text)
    started = orlop.inside(
        lambda: subprocess.Popen(
            [Path(__file__).parents[2] / "orlop", "build", "--secret", f"id=s,src={tmp_path / 's'}", context],
            env=orlop.variables,
            stderr=subprocess.PIPE,
        )
    )
    for line in started.stderr:
        if b"begun" in line and b"RUN" not in line:
            break
    assert list(orlop.run.glob("build-*/secret*"))
    os.kill(json.loads(orlop("info", "--format", "json").stdout)["Pid"], signal.SIGKILL)
    started.wait(60)
    started.stderr.close()
    orlop("info")
    assert not list(orlop.run.glob("build-*")) and not list((orlop.root / "build/builds").iterdir())
    assert not list((orlop.root / "snapshots/active").iterdir())
    until(lambda: not any(b"5432" in processes.read(pid, "cmdline") for pid in processes.pids()))


def test_attestations_lie_beside_the_image(orlop, context, tmp_path):
    (context / "status").write_text(
        "Package: tool\nStatus: install ok installed\nVersion: 1.2-3\n\n"
        "Package: gone\nStatus: deinstall ok config-files\n"
    )
    text = "FROM host\nARG TOKEN\nCOPY status /var/lib/dpkg/status\nRUN echo x > /x\n"
    options = ["--attest", "type=provenance,mode=max", "--sbom=true", "--build-arg", "TOKEN=value-of-it", "-t", "x:1"]
    build(orlop, context, text, *options, "-o", f"type=oci,dest={tmp_path / 'o.tar'}")
    subprocess.run(["tar", "xf", tmp_path / "o.tar", "-C", tmp_path], check=True)

    def blob(digest):
        return json.loads((tmp_path / "blobs" / digest.replace(":", "/")).read_bytes())

    (entry, *_) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    index = blob(entry["digest"])
    image, attestation = index["manifests"]
    assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    statements = [blob(layer["digest"]) for layer in blob(attestation["digest"])["layers"]]
    assert [one["predicateType"] for one in statements] == [
        "https://spdx.dev/Document",
        "https://slsa.dev/provenance/v1",
    ]
    assert [(one["name"], one["versionInfo"]) for one in statements[0]["predicate"]["packages"]][:1] == [
        ("tool", "1.2-3")
    ]
    (base,) = statements[1]["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert base["uri"] == "pkg:docker/host" and "value-of-it" not in json.dumps(statements)
    orlop("load", "-i", tmp_path / "o.tar")
    assert run(orlop, "x:1", "cat", "/x") == "x\n"


def test_attestations_of_a_folder_and_of_an_archive_are_files_in_them(orlop, context, tmp_path):
    (context / "a.txt").write_text("one")
    text = "FROM scratch\nCOPY a.txt /a\nCOPY a.txt /sub/b\n"
    asked = ("--provenance=mode=max,filename=how.json", "--sbom=true")
    build(orlop, context, text, *asked, "-o", f"type=local,dest={tmp_path / 'out'}")
    provenance, sbom = (json.loads((tmp_path / "out" / name).read_text()) for name in ("how.json", "sbom.spdx.json"))
    digest = hashlib.sha256((context / "a.txt").read_bytes()).hexdigest()
    subject = [{"name": name, "digest": {"sha256": digest}} for name in ("a", "sub/b")]
    assert provenance["subject"] == sbom["subject"] == subject
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    assert sbom["predicateType"] == "https://spdx.dev/Document" and sbom["predicate"]["spdxVersion"] == "SPDX-2.3"
    platforms = ("--platform=linux/amd64,linux/arm64", "--provenance=true")
    build(orlop, context, text, *platforms, "-o", f"type=tar,dest={tmp_path / 'o.tar'},attestation-prefix=x-")
    with tarfile.open(tmp_path / "o.tar") as archive:
        found = [name for name in archive.getnames() if name.endswith(".json")]
    assert found == ["linux_amd64/x-provenance.json", "linux_arm64/x-provenance.json"]
    text = "FROM scratch\nCOPY a.txt /provenance.json\n"
    done = build(orlop, context, text, "--provenance=true", "-o", f"type=local,dest={tmp_path / 'no'}", check=False)
    assert done.code and "the tree has a file of that name" in done.stderr
    assert not build(orlop, context, text, "-o", f"type=local,dest={tmp_path / 'yes'}").code


def test_a_cache_goes_to_another_engine_in_a_folder(orlop, context, tmp_path):
    (context / "f").write_text("f")
    text = "FROM host AS a\nARG V\nRUN echo $V > /v; date +%N > /x\nFROM host\nCOPY f /f\nCOPY --from=a /v /x /\n"
    options = ["--build-arg", "V=1"]
    first = image_id(build(orlop, context, text, *options, "--cache-to", f"type=local,dest={tmp_path / 'cache'}"))
    orlop("builder", "prune", "-af")
    assert missed(orlop, context, *options)
    orlop("builder", "prune", "-af")
    taken = ["--cache-from", f"type=local,src={tmp_path / 'cache'}"]
    assert missed(orlop, context, *options, *taken) == {}
    assert image_id(build(orlop, context, text, *options, *taken)) == first
    orlop("builder", "prune", "-af")
    for blob in (tmp_path / "cache/blobs/sha256").iterdir():
        blob.write_bytes(b"broken")
    told = orlop("build", "--progress=plain", *options, *taken, context).stderr
    assert "is not used" in told and "CACHED" not in told


def test_rebase_puts_an_image_on_another_base(orlop, context):
    build(orlop, context, "FROM host\nENV A=old B=old\nLABEL l=old\nRUN echo old > /base\n", "-t", "base:1")
    build(orlop, context, "FROM base:1\nENV B=mine\nRUN echo mine > /own\n", "-t", "app")
    build(orlop, context, "FROM host\nENV A=new B=new\nLABEL l=new\nRUN echo new > /base\n", "-t", "base:2")
    orlop("rebase", "app", "--from", "base:1", "--to", "base:2")
    assert run(orlop, "app", "sh", "-c", "cat /base /own; echo $A $B") == "new\nmine\nnew mine\n"
    assert json.loads(orlop("inspect", "app").stdout)[0]["Config"]["Labels"] == {"l": "new"}
    failed = orlop("rebase", "app", "--from", "base:1", "--to", "base:2", check=False)
    assert failed.code == 1 and "does not stand on base:1" in failed.stderr


def test_the_disk_has_a_line_for_the_cache_and_prune_empties_it(orlop, context):
    build(orlop, context, "FROM host\nRUN head -c 100000 /dev/urandom > /f\n")
    orlop("image", "prune", "-f")  # without its image the layer is the cache's alone
    (line,) = [one for one in orlop("system", "df").stdout.splitlines() if one.startswith("Build Cache")]
    total, active, size = line.removeprefix("Build Cache").split()[:3]
    assert (total, active) == ("1", "0") and size.startswith("10"), line
    assert "CACHE ID" in orlop("system", "df", "-v").stdout
    told = orlop("system", "prune", input="n\n", check=False)
    assert "unused build cache" in told.stdout + told.stderr
    assert "Deleted build cache objects:" in orlop("system", "prune", "-f").stdout
    assert "Total: 0B" in orlop("builder", "du").stdout


def test_a_check_s_answer_has_what_can_not_be_built(orlop, context):
    """As docker's: also what can't be read at all, and a rule that was made an error; a range for each line."""
    (context / "Dockerfile").write_text("# check=error=true\nFROM host\nCMD a \\\n b\n")
    found = json.loads(orlop("build", "--call=check,format=json", context, check=False).stdout)
    assert found["buildError"]["message"] == "lint violation found for rules: JSONArgsRecommended"
    ranges = [{"start": {"line": line}, "end": {"line": line}} for line in (3, 4)]
    assert [one["location"] for one in found["warnings"]] == [{"ranges": ranges}]
    (context / "Dockerfile").write_text("FROM host\nFOO a\n")
    done = orlop("build", "--call=check,format=json", context, check=False)
    assert done.code == 1
    error = json.loads(done.stdout)["buildError"]
    assert error["message"] == "dockerfile parse error on line 2: unknown instruction: FOO"
    assert error["location"] == {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
    told = orlop("build", "--check", context, check=False).stdout
    assert told.startswith("ERROR: dockerfile parse error on line 2") and ">>> FOO a" in told
