"""What each instruction does to its stage: configuration, variables, tree. COPY and ADD are in `copying`."""

from __future__ import annotations

import posixpath

from orlop.image.changes import is_signal, port_specs
from orlop.spec.platform import Platform

from .. import graph
from . import history, mounts
from . import instructions as kinds
from . import lint as rules
from .copying import add, copy
from .lines import parse_heredoc
from .stage import SHELL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .stage import Stage

    # Returns the tree that a name stands for: a stage, a named context, an image.
    Trees = Callable[[str, kinds.Instruction], graph.Vertex]
    Do = Callable[[Stage, Any, Trees], None]

SECRETS_DIRECTORY = "/run/secrets"
SSH_DIRECTORY = "/run/buildkit"
SCRIPTS_DIRECTORY = "/dev/pipes"


def apply(stage: Stage, one: kinds.Instruction, trees: Trees) -> None:
    """Do what an instruction says. Raises DockerfileError."""
    _STEPS[type(one)](stage, one, trees)


def makes_a_step(one: kinds.Instruction) -> bool:
    """Say whether progress counts the instruction."""
    return isinstance(one, kinds.Run | kinds.Copying | kinds.Workdir)


def parse_platform(text: str, build: Platform) -> Platform:
    """Return the platform of --platform: `os/architecture[/variant]`, or one of both alone. Raises Invalid."""
    if "/" not in text and text.lower() in ("linux", "windows", "darwin", "freebsd"):
        return Platform.parse(f"{text}/{build.architecture}")
    return Platform.parse(text if "/" in text else f"{build.os}/{text}")


def with_shell(stage: Stage, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return what executes a command in shell form."""
    return (*(stage.config.shell or SHELL), " ".join(words))


# -- variables and labels -----------------------------------------------------------------------------------------


def _arg(stage: Stage, one: kinds.Arg, _: Trees) -> None:
    texts = []
    for name, default in one.arguments:
        stage.consumed.add(name)
        if name in stage.options.build_args:
            value: str | None = stage.options.build_args[name]
        elif default is not None:
            value = stage.expand(default, one)
        else:
            value = stage.global_args.get(name)
        stage.set_arg(name, value)
        texts.append(name if value is None else f"{name}={value}")
    stage.record(f"ARG {' '.join(texts)}", one)


def _env(stage: Stage, one: kinds.Env, _: Trees) -> None:
    # All values see the variables as they were before the instruction.
    pairs = [(stage.expand(name, one), stage.expand(value, one)) for name, value in one.pairs]
    for name, value in pairs:
        if not name:
            stage.wrong(one, "ENV names can not be blank")
        stage.set_env(name, value)
    stage.record("ENV " + " ".join(f"{name}={value}" for name, value in pairs), one)


def _label(stage: Stage, one: kinds.Label, _: Trees) -> None:
    pairs = [(stage.expand(name, one), stage.expand(value, one)) for name, value in one.pairs]
    stage.labels.update(pairs)
    stage.record("LABEL " + " ".join(f"{name}={value}" for name, value in pairs), one)


# -- configuration ------------------------------------------------------------------------------------------------


def _cmd(stage: Stage, one: kinds.Cmd, _: Trees) -> None:
    words = _command(stage, one)
    stage.config = stage.config.replace(cmd=words)
    stage.cmd_set = True
    stage.record(f"CMD {history.quoted_list(words)}", one)


def _entrypoint(stage: Stage, one: kinds.Entrypoint, _: Trees) -> None:
    words = _command(stage, one)
    # An inherited CMD was meant for the inherited ENTRYPOINT.
    stage.config = stage.config.replace(entrypoint=words, cmd=stage.config.cmd if stage.cmd_set else ())
    stage.record(f"ENTRYPOINT {history.quoted_list(words)}", one)


def _command(stage: Stage, one: kinds.Command) -> tuple[str, ...]:
    if one.is_json:
        return one.words
    if not stage.config.shell:
        stage.lint.warn(rules.JSON_ARGS_RECOMMENDED, one, one.word)
    return with_shell(stage, one.words)


def _shell(stage: Stage, one: kinds.Shell, _: Trees) -> None:
    change = {"shell": one.words}  # written so, nobody takes it for a subprocess's
    stage.config = stage.config.replace(**change)
    stage.record(f"SHELL {history.plain_list(one.words)}", one)


def _user(stage: Stage, one: kinds.User, _: Trees) -> None:
    user = stage.expand(one.user, one)
    stage.config = stage.config.replace(user=user)
    stage.record(f"USER {user}", one)


def _volume(stage: Stage, one: kinds.Volume, _: Trees) -> None:
    paths = [stage.expand(path, one) for path in one.paths]
    if not all(paths):
        stage.wrong(one, "VOLUME specified can not be an empty string")
    stage.volumes.update((path, {}) for path in paths)
    stage.record(f"VOLUME {history.plain_list(paths)}", one)


def _expose(stage: Stage, one: kinds.Expose, _: Trees) -> None:
    words = [word for port in one.ports for word in stage.expand_words(port, one)]
    ports: dict[str, object] = {}
    for word in words:
        rules.check_port(one, word, stage.lint)
        try:
            ports.update((port, {}) for port in port_specs(word))
        except ValueError as wrong:
            stage.wrong(one, str(wrong), hint="write EXPOSE 80, 80/udp or 8000-8010")
    stage.ports.update(ports)
    stage.record(f"EXPOSE {history.plain_list(sorted(ports))}", one)


def _stopsignal(stage: Stage, one: kinds.StopSignal, _: Trees) -> None:
    signal = stage.expand(one.signal, one)
    if not is_signal(signal):
        stage.wrong(one, f"invalid signal: {signal}")
    stage.config = stage.config.replace(stop_signal=signal)
    stage.record(f"STOPSIGNAL {signal}", one)


def _healthcheck(stage: Stage, one: kinds.Healthcheck, _: Trees) -> None:
    stage.config = stage.config.replace(healthcheck=one.health)
    stage.record(f"HEALTHCHECK {history.health(one.health)}", one)


def _maintainer(stage: Stage, one: kinds.Maintainer, _: Trees) -> None:
    stage.author = one.maintainer
    stage.record(f"MAINTAINER {one.maintainer}", one)


def _onbuild(stage: Stage, one: kinds.OnBuild, _: Trees) -> None:
    stage.config = stage.config.replace(on_build=(*stage.config.on_build, one.trigger))


# -- the tree -----------------------------------------------------------------------------------------------------


def _workdir(stage: Stage, one: kinds.Workdir, _: Trees) -> None:
    path = stage.expand(one.path, one)
    if not stage.workdir_set and not path.startswith("/"):
        stage.lint.warn(rules.WORKDIR_RELATIVE_PATH, one, history.quoted(path))
    stage.workdir_set = True
    directory = "/" + posixpath.normpath(posixpath.join("/", stage.config.working_dir, path)).lstrip("/")
    stage.config = stage.config.replace(working_dir=directory)
    created_by = f"WORKDIR {directory}"
    if directory == "/":
        stage.record(created_by, one)
        return
    vertex = graph.MakeDirectory(
        base=stage.vertex,
        path=directory,
        owner=stage.config.user,
        origin=stage.origin(one, counted=True),
        created_by=created_by,
    )
    stage.record_layer(created_by, vertex)


def _run(stage: Stage, one: kinds.Run, trees: Trees) -> None:
    words, script = _command_line(stage, one)
    argv = words if one.is_json else with_shell(stage, words)
    args = [f"{name}={stage.variables.get(name, value or '')}" for name, value in stage.args.items()]
    counted = [f"|{len(args)}", *args] if args else []
    created_by = stage.layer_text("RUN " + " ".join([*counted, *argv]))
    mounted = [_mount(stage, one, text, index, trees) for index, text in enumerate(one.mounts)]
    vertex = graph.Run(
        base=stage.vertex,
        argv=argv,
        env=stage.environment(),
        proxies=stage.proxies(),
        cwd=stage.config.working_dir or "/",
        user=stage.config.user,
        mounts=(*script, *mounted),
        network=one.network or graph.DEFAULT,
        security=one.security or graph.SANDBOX,
        devices=tuple(_device(stage, one, device) for device in one.devices),
        origin=stage.origin(one, counted=True),
        created_by=created_by,
    )
    stage.record_layer(created_by, vertex)


def _command_line(stage: Stage, one: kinds.Run) -> tuple[tuple[str, ...], tuple[graph.Mount, ...]]:
    """Return the words of a RUN with its here-documents, and the script when one is to be executed."""
    if not one.heredocs:
        return one.words, ()
    (line,) = one.words
    first = one.heredocs[0]
    if parse_heredoc(line) is None:  # a command that reads them: the shell understands them
        documents = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in one.heredocs)
        return (line + documents,), ()
    if not first.text.startswith("#!"):
        return (first.text,), ()
    if "/" in first.name or first.name in (".", ".."):
        stage.wrong(one, f"a script can't be called {first.name!r}", hint="use a word such as EOF")
    target = f"{SCRIPTS_DIRECTORY}/{first.name}"
    return (target,), (graph.ScriptMount(target=target, data=first.text.encode()),)


def _device(stage: Stage, one: kinds.Run, text: str) -> str:
    """Return the name of a CDI device, with "?" when the step may do without."""
    name = ""
    required = False
    for field in stage.expand(text, one).split(","):
        key, equals, value = field.partition("=")
        if key == "required" and value in ("", "true", "1"):
            required = True
        elif key == "required" and value in ("false", "0"):
            required = False
        elif key == "name" and value:
            name = value
        elif field and not name and (not equals or "/" in key):
            name = field
        else:
            stage.wrong(one, f"unexpected field '{field}' in device '{text}'")
    if not name:
        stage.wrong(one, f"device '{text}' has no name")
    return name if required else f"{name}?"


def _mount(stage: Stage, one: kinds.Run, text: str, index: int, trees: Trees) -> graph.Mount:
    try:
        flag = mounts.parse_mount(text, lambda value: stage.expand(value, one))
    except ValueError as wrong:
        stage.wrong(one, str(wrong))
    if flag.type == mounts.SECRET:
        return _secret(stage, flag)
    if flag.type == mounts.SSH:
        return _ssh(stage, flag, index)
    target = posixpath.normpath(posixpath.join(stage.config.working_dir or "/", flag.target))
    if not flag.target or target in ("/", "//"):
        stage.wrong(one, f'invalid mount target "{flag.target or target}"', hint="name a directory with target=")
    if flag.type == mounts.TMPFS:
        return graph.TmpfsMount(target=target, size_bytes=flag.size)
    path = posixpath.normpath("/" + flag.source)
    path = "/" + path.lstrip("/")
    if flag.type == mounts.CACHE:
        return graph.CacheMount(
            target=target,
            id=_cache_id(stage, flag.id or posixpath.normpath(flag.target)),
            source=trees(flag.source_stage, one) if flag.source_stage else None,
            path=path,
            read_only=bool(flag.read_only),
            sharing=flag.sharing or graph.SHARED,
            mode=0o755 if flag.mode is None else flag.mode,
            uid=flag.uid or 0,
            gid=flag.gid or 0,
        )
    return graph.BindMount(
        target=target,
        source=trees(flag.source_stage, one),
        path=path,
        read_only=flag.read_only is not False,
    )


def _cache_id(stage: Stage, name: str) -> str:
    namespace = stage.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
    return f"{namespace}/{name}" if namespace else name


def _secret(stage: Stage, flag: mounts.MountFlag) -> graph.SecretMount:
    name = flag.id or flag.source or posixpath.basename(flag.target)
    target = flag.target
    if not target and not flag.env:
        target = f"{SECRETS_DIRECTORY}/{posixpath.basename(name)}"
    return graph.SecretMount(
        id=name,
        target=posixpath.normpath(posixpath.join(stage.config.working_dir or "/", target)) if target else "",
        env=flag.env,
        required=flag.required,
        mode=0o400 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
    )


def _ssh(stage: Stage, flag: mounts.MountFlag, index: int) -> graph.SshMount:
    target = flag.target or f"{SSH_DIRECTORY}/ssh_agent.{index}"
    return graph.SshMount(
        id=flag.id or flag.source or "default",
        target=posixpath.normpath(posixpath.join(stage.config.working_dir or "/", target)),
        required=flag.required,
        mode=0o600 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
    )


_STEPS: dict[type[kinds.Instruction], Do] = {
    kinds.Add: add,
    kinds.Arg: _arg,
    kinds.Cmd: _cmd,
    kinds.Copy: copy,
    kinds.Entrypoint: _entrypoint,
    kinds.Env: _env,
    kinds.Expose: _expose,
    kinds.Healthcheck: _healthcheck,
    kinds.Label: _label,
    kinds.Maintainer: _maintainer,
    kinds.OnBuild: _onbuild,
    kinds.Run: _run,
    kinds.Shell: _shell,
    kinds.StopSignal: _stopsignal,
    kinds.User: _user,
    kinds.Volume: _volume,
    kinds.Workdir: _workdir,
}
