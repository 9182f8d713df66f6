"""The library against a real engine: synchronous and asynchronous from one source, cleanup, streams, ownership."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import orlop as library
from support.docker_http import box_engine
from support.engine import CHECKOUT, Environment

CONCURRENT = int(os.environ.get("ORLOP_SDK_CONCURRENT", "12"))  # 200 in the long form


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with box_engine() as environment:
        yield environment


@pytest.fixture
def engine(environment: Environment) -> Iterator[library.Engine]:
    with library.connect(root=str(environment.root), run=str(environment.run)) as engine:
        yield engine
        assert engine.containers(all=True) == []


def connect_async(environment: Environment) -> library.AsyncEngine:
    return library.connect_async(root=str(environment.root), run=str(environment.run))


def test_a_command_and_its_streams(engine: library.Engine) -> None:
    done = engine.run("box:1", "sh", "-c", "echo out; echo err >&2", network="none")
    assert done == (0, b"out\n", b"err\n")
    with pytest.raises(library.CommandError, match="ended with status 3: why") as failed:
        engine.run("box:1", "sh", "-c", "echo why >&2; exit 3", network="none")
    assert failed.value.completed.exit_code == 3
    assert engine.run("box:1", "sh", "-c", "exit 3", network="none", check=False).exit_code == 3


def test_input_larger_than_every_buffer(engine: library.Engine, environment: Environment) -> None:
    data = os.urandom(1 << 20)
    assert engine.run("box:1", "cat", input=data, network="none").stdout == data

    async def main() -> bytes:
        async with connect_async(environment) as client:
            return (await client.run("box:1", "cat", input=data, network="none")).stdout

    assert asyncio.run(main()) == data


def test_options(engine: library.Engine) -> None:
    with engine.volume() as volume:
        done = engine.run(
            "box:1",
            "sh",
            "-c",
            "echo $A; pwd; echo x >/v/f; cat /v/f; read a <test || echo $?",
            env={"A": "b"},
            workdir="/tmp",
            network="none",
            volumes=[f"{volume}:/v"],
            tmpfs=["/t"],
            memory="64m",
            cpus=0.5,
            labels={"x": "y"},
            cap_drop=["ALL"],
            read_only=True,
        )
    assert done.stdout.splitlines()[:3] == [b"b", b"/tmp", b"x"]
    with pytest.raises(TypeError, match="unknown option 'nosuch'"):
        engine.run("box:1", "true", nosuch=1)  # type: ignore[call-arg]
    with pytest.raises(library.Invalid):
        engine.run("box:1", "true", memory="much")


def test_errors_are_the_engine_s(engine: library.Engine) -> None:
    with pytest.raises(library.NotFound):
        engine.container("nosuch")
    with pytest.raises(library.NotFound):
        engine.create("nosuch:1", "true")
    with pytest.raises(library.CommandFailed):
        engine.run("box:1", "nosuch", network="none")


def test_a_context_cleans_up_whatever_happens(engine: library.Engine) -> None:
    with engine.running("box:1", "sleep", "1000", network="none", name="c") as container:
        assert engine.container("c").id == container.id
        assert container.exec("echo", "in").stdout == b"in\n"
        assert container.exec("cat", input=b"typed").stdout == b"typed"
        with pytest.raises(library.CommandError):
            container.exec("sh", "-c", "exit 1")
        container.pause()
        assert container.inspect()["State"]["Paused"]
        container.unpause()
    with pytest.raises(ZeroDivisionError), engine.running("box:1", "sleep", "1000", network="none"):
        raise ZeroDivisionError
    with pytest.raises(library.CommandFailed), engine.running("box:1", "nosuch", network="none"):
        raise AssertionError
    with engine.running("box:1", "sleep", "1000", network="none") as container:
        container.remove(force=True)  # by somebody else: nothing is wrong with that
    with engine.network("net") as network, engine.running("box:1", "sleep", "1000", network="net"):
        assert len(network) == 64


def test_streams_are_iterators(engine: library.Engine) -> None:
    events = engine.events(type="container")
    with engine.running("box:1", "sh", "-c", "echo a; echo b >&2; sleep 1000", network="none") as container:
        pieces = container.logs(follow=True)
        assert sorted([next(pieces), next(pieces)]) == [("stderr", b"b\n"), ("stdout", b"a\n")]
        pieces.close()  # type: ignore[attr-defined]
        assert next(one["Actor"]["ID"] for one in events if one["Action"] == "create") == container.id
        container.kill()
        assert container.wait() == 137
        assert sorted(container.logs()) == [("stderr", b"b\n"), ("stdout", b"a\n")]
    events.close()  # type: ignore[attr-defined]


def test_a_cancelled_task_leaves_nothing(environment: Environment, engine: library.Engine) -> None:
    async def held(client: library.AsyncEngine, ready: asyncio.Event) -> None:
        async with client.running("box:1", "sleep", "1000", network="none"):
            ready.set()
            await asyncio.sleep(1000)

    async def main() -> None:
        async with connect_async(environment) as client:
            ready = asyncio.Event()
            task = asyncio.create_task(held(client, ready))
            await ready.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            early = asyncio.create_task(held(client, ready))
            await asyncio.sleep(0)  # in the middle of the creation
            early.cancel()
            with pytest.raises(asyncio.CancelledError):
                await early
            assert await client.containers(all=True) == []

    asyncio.run(main())


def test_many_at_once_in_one_event_loop(environment: Environment, engine: library.Engine) -> None:
    """SEC-75 too: nobody's environment reaches another one."""

    async def main() -> list[library.Completed]:
        async with connect_async(environment) as client:
            runs = (
                client.run("box:1", "sh", "-c", "echo $WHO", env={"WHO": str(number)}, network="none")
                for number in range(CONCURRENT)
            )
            return list(await asyncio.gather(*runs))

    assert [done.stdout for done in asyncio.run(main())] == [b"%d\n" % number for number in range(CONCURRENT)]


HOLDER = """
import sys, time
import orlop
engine = orlop.connect(tied=True)
engine.create("box:1", "true", network="none", name="made")
with engine.volume("owned"), engine.network("ours"), engine.running("box:1", "sleep", "1000", network="ours"):
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("engine_dies", [False, True])
def test_what_a_process_made_goes_with_it(environment: Environment, engine: library.Engine, engine_dies: bool) -> None:
    """kill -9 of the program, and of its engine before that: the next engine finds the owner gone by looking."""
    variables = environment.variables | {"PYTHONPATH": str(CHECKOUT / "src")}
    argv = [sys.executable, "-c", HOLDER]
    with environment.inside(lambda: subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE)) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
            assert len(engine.containers(all=True)) == 2
            if engine_dies:
                pid = environment.engine_pid()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        finally:
            holder.kill()
    deadline = time.monotonic() + 60
    while environment("ps", "-aq").stdout or environment("volume", "ls", "-q").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while "ours" in environment("network", "ls").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.close()


def test_the_package_costs_nothing_until_it_is_used() -> None:
    code = "import sys; before = set(sys.modules); import orlop; print(sorted(set(sys.modules) - before))"
    env = {"PYTHONPATH": str(CHECKOUT / "src")}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "['orlop']\n"
    assert set(library.__all__) <= {name for name in library.__all__ if getattr(library, name)}
    with pytest.raises(AttributeError):
        _ = library.nosuch  # type: ignore[attr-defined]


@pytest.mark.timeout(400)
def test_programs_and_the_examples_are_typed(tmp_path: Path) -> None:
    """mypy --strict on what users write: the examples of the documentation, and errors where there are some."""
    text = (CHECKOUT / "docs/sdk.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) >= 4
    for number, block in enumerate(blocks):
        (tmp_path / f"example{number}.py").write_text(block)
    (tmp_path / "wrong.py").write_text(
        textwrap.dedent("""
        import orlop
        orlop.connect().run("box", name=5)
        orlop.connect().run("box").nosuch
        """)
    )
    env = os.environ | {"MYPYPATH": str(CHECKOUT / "src")}
    argv = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--no-error-summary",
        "--follow-imports=silent",
    ]
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    done = subprocess.run([*argv, *files], env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    errors = [line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line]
    assert errors == ["wrong.py"] * 2, done.stdout
