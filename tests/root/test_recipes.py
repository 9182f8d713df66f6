"""`build.py` through the real command: executed in a container of the engine, which knows what it may and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.engine import Environment

HEAD = "# syntax=orlop/python\nfrom orlop.recipe import *\n"
# Past what `orlop.recipe` refuses: the container is what keeps a recipe in.
OUT = HEAD + "os = stage.__globals__['os']\nmade = stage('scratch')\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def built(orlop: Environment, context: Path, text: str, *words: str) -> str:
    (context / "build.py").write_text(text)
    return orlop("build", "-q", "--network=none", "-f", context / "build.py", *words, context).stdout.strip()


def graph(orlop: Environment, context: Path, text: str) -> dict[str, object]:
    (context / "build.py").write_text(text)
    words = ["--call=graph", "--format=json", "-f", context / "build.py", context]
    found: dict[str, object] = json.loads(orlop("build", *words).stdout)
    return found


def test_a_recipe_is_built_with_its_arguments_and_files(orlop: Environment, context: Path) -> None:
    (context / "VERSION").write_text("1.2\n")
    (context / "Dockerfile").write_text(
        "ARG NAME=x\nFROM host AS made\nRUN echo 1.2 y >/v\nFROM host\nCOPY --from=made /v /v\n"
    )
    text = (
        HEAD + "made = stage('host', name='made')\nname = arg('NAME', 'x')\n"
        "made.run(f\"echo {read('VERSION').strip()} {name} >/v\")\nstage('host').copy('/v', to='/v', source=made)\n"
        "print('noise')\n"
    )
    image = built(orlop, context, text, "--build-arg", "NAME=y")
    assert orlop("run", "--rm", "--network=none", image, "cat", "/v").stdout == "1.2 y\n"
    assert orlop("build", "-q", "--network=none", context).stdout.strip() == image, "the same image of a Dockerfile"
    told = orlop("build", "--network=none", "-f", context / "build.py", context, check=False)
    assert told.code == 0
    (context / "build.py").write_text(text + "\nstage('host').run('false')\n")
    told = orlop("build", "--network=none", "-f", context / "build.py", context, check=False)
    assert told.code == 1 and 'process "/bin/sh -c false" did not complete successfully' in told.stderr


def test_a_recipe_that_goes_past_its_module_is_in_a_container(
    orlop: Environment, context: Path, tmp_path: Path
) -> None:
    """Red: with the machine's tree, its network or capabilities in `recipes._command`, one of the words differs."""
    (tmp_path / "canary").write_text("of the machine")
    (context / "secret").write_text("of the context")
    text = OUT + (
        "links = sorted(os.listdir('/sys/class/net'))\n"
        "status = dict(line.split(':', 1) for line in os.fdopen(os.open('/proc/self/status', 0)))\n"
        f"seen = [path for path in ({str(tmp_path / 'canary')!r}, '/root', '/etc/shadow', '/secret', '/run') "
        "if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path))]\n"
        "try:\n    os.open(os.__file__, os.O_WRONLY)\n    written = 'yes'\nexcept OSError:\n    written = 'no'\n"
        "made.label(links=' '.join(links), caps=status['CapEff'].strip(), privs=status['NoNewPrivs'].strip(),\n"
        "           seen=' '.join(seen), written=written)\n"
    )
    (target,) = graph(orlop, context, text)["targets"]  # type: ignore[misc]
    labels = target["config"]["Labels"]  # type: ignore[index]
    assert labels == {"links": "lo", "caps": "0" * 16, "privs": "1", "seen": "", "written": "no"}


HOSTILE = {
    "a lie": (
        OUT + "os.write(stage.__globals__['_recipe'].answers, b'{\"lines\": 7}\\n')\nos._exit(0)",
        "no Dockerfile",
    ),
    "no text": (OUT + "os.write(stage.__globals__['_recipe'].answers, b'\\xff' * 9)\nos._exit(0)", "build.py"),
    "no answer": (OUT + "os.write(2, b'it is over')\nos._exit(9)", "it ended with status 9: it is over"),
    "memory": (HEAD + "x = 'a' * (1 << 40)", "MemoryError"),
    "out of the context": (HEAD + "read('../out')", "no name of a file of the context"),
}


def test_what_a_hostile_recipe_says_is_an_error(orlop: Environment, context: Path) -> None:
    """Red: without the looks at an answer in `recipes._read`, "a lie" is a defect of the engine's."""
    for name, (text, told) in HOSTILE.items():
        (context / "build.py").write_text(text)
        done = orlop("build", "--network=none", "-f", context / "build.py", context, check=False)
        assert done.code == 1 and told in done.stderr and "defect" not in done.stderr, (name, done.stderr)
    assert not orlop("ps", "-aq").stdout
