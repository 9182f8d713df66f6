"""`orlop build`: flags of docker build and buildx, the context, and where what was built goes."""

from __future__ import annotations

import os
import sys

from ....build.cache import places
from ....build.output import wanted
from ....build.registries import LAYOUT_PREFIX
from ....build.request import AgentSource, BuildRequest, SecretSource, parse_epoch
from ....spec.errors import CommandFailed, Invalid, NotFound, OrlopError, Unavailable, Unsupported
from ..command import Command, Invocation, visible, warn, write_line
from ..flags import BOOL, EXIT_USAGE, INT, LIST, STRING, Flag, Kind, Options, UsageError
from ..limits import parse_ulimit
from ..values import BYTES, parse_label, parse_memory_swap
from . import display

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ....build.cache.places import CachePlace
    from ....build.output.wanted import Attestation
    from ...native.client import Engine

DOCKERFILE_BYTES_MAX = 16 * 1024 * 1024
REMOTE_PREFIXES = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
MAGIC_BYTES = 512
EXIT_AGAIN = 75  # of a shell in a failed step; sysexits.h: "the user is invited to retry"
_ULIMIT = Kind("ulimit", parse_ulimit, repeatable=True)
_SWAP = Kind("bytes", parse_memory_swap)


def _build(invocation: Invocation) -> int:
    options = invocation.options
    if len(invocation.arguments) > 1:
        from . import builder

        if invocation.arguments[0] == "shell":
            return builder.enter(invocation, invocation.arguments[1], invocation.arguments[2:])
        if invocation.arguments[0] == "logs" and len(invocation.arguments) == 2:
            return builder.print_log(invocation, invocation.arguments[1])
        if invocation.arguments[0] == "cache":
            from .cachemounts import cache

            return cache(invocation, invocation.arguments[1:])
        raise UsageError("orlop: 'build' requires exactly 1 argument", code=EXIT_USAGE)
    request, archive = build_request(options, invocation.arguments)
    try:
        if options["check"] or options["call"] not in ("", "build"):
            from .check import run_check

            return run_check(invocation, request, archive)
        return _solve(invocation, request, archive)
    finally:
        if archive > 2:
            os.close(archive)


def _solve(invocation: Invocation, request: BuildRequest, archive: int) -> int:
    from . import outputs

    options = invocation.options
    mode = "quiet" if options["quiet"] else options["progress"] or os.environ.get("BUILDKIT_PROGRESS", "auto")
    if mode not in display.MODES:
        raise UsageError(f"invalid progress mode {mode}", f"one of {', '.join(display.MODES)}")
    shown: display.Plain = display.Why(sys.stderr) if options["why"] else display.display(mode, title=options["title"])
    with outputs.Destinations(options) as places, invocation.connect() as engine:
        fds = [*([archive] if archive >= 0 else []), *places.sinks]
        asked = _with_credentials(engine, request.replace(outputs=places.outputs))
        messages = engine.messages("build.solve", {"request": asked.to_json()}, fds)
        try:
            result = _follow(messages, shown)
            places.finish()
        except OrlopError as wrong:
            shown.close()
            _tell_failure(shown)
            if options["on-error"] == "shell" and isinstance(wrong, CommandFailed):
                return _enter_failed(invocation, shown, wrong)
            raise
    shown.close()
    if options["why"]:
        _print_why(shown, options)
    _write_files(options, result)
    if options["quiet"]:
        write_line(str(result["id"]))
    elif mode not in ("rawjson",) and not options["why"]:
        shown.stream.write(f"Successfully built {result['id']}\n")
        for name in result["names"]:
            shown.stream.write(f"Successfully tagged {name}\n")
    return 0


def _with_credentials(engine: Engine, request: BuildRequest) -> BuildRequest:
    """Return a request with what the user has for the registries that it may ask."""
    from ....build.registries import HUB, names_of, references
    from ....engine.credentials import has_own
    from ..credentials import for_places

    text = request.dockerfile_text or ""
    if not text and request.context:
        try:
            with open(f"{request.context}/{request.dockerfile or 'Dockerfile'}", errors="replace") as file:
                text = file.read(DOCKERFILE_BYTES_MAX)
        except OSError:
            pass  # the engine says what is wrong with it
    named = references(text, names_of(request))
    found = {host: for_places(engine, host) for host in sorted({HUB, *(one.domain for one in named)})}
    # A helper is a process, and a question to the engine too: only where a file has something for one repository.
    for one in {one.name: one for one in named if has_own(one.domain, one.path)}.values():
        found[one.name] = for_places(engine, one.domain, one.path)
    return request.replace(credentials={name: one for name, one in found.items() if one.to_json()})


def _follow(messages: Any, shown: display.Plain) -> dict[str, Any]:
    while True:
        try:
            shown.show(next(messages))
        except StopIteration as end:
            return end.value if isinstance(end.value, dict) else {}


def _enter_failed(invocation: Invocation, shown: display.Plain, wrong: CommandFailed) -> int:
    """Open a shell where a step failed; the build has failed all the same, unless its end asks for another try.

    The steps before the failed one are in the cache then, whatever was changed in the context meanwhile.
    """
    from . import builder

    again = f"`exit {EXIT_AGAIN}` builds again from this step on. " if invocation.arguments != ["-"] else ""
    warn(f"orlop: {wrong}")
    warn(f"You are where it failed (exit code {wrong.exit_code}). {again}Later: orlop build shell {shown.build}")
    status = builder.enter(invocation, shown.build, [])
    return _build(invocation) if status == EXIT_AGAIN and again else 1


def _tell_failure(shown: display.Plain) -> None:
    told = f"{shown.excerpt}\n" if shown.excerpt else ""
    if shown.failed is not None:
        tail = shown.failed.get("tail")
        lines = tail if isinstance(tail, list) else []
        told += f"------\n > {shown.failed.get('name')}:\n" + "".join(f"{line}\n" for line in lines) + "------\n"
    # What a Dockerfile and its programs say may not steer the terminal (SEC-78).
    shown.stream.write(visible(told) if shown.stream.isatty() else told)


def _print_why(shown: display.Plain, options: Options) -> None:
    if not isinstance(shown, display.Why):
        return
    if options["format"] == "json":
        from ....spec import jsonio

        told = [{"step": shown.steps.get(number, ""), "changed": why} for number, why in shown.reasons.items()]
        write_line(jsonio.dump(told).decode())
        return
    if not shown.reasons:
        write_line("Every step came from the cache.")
    for number, why in shown.reasons.items():
        write_line(shown.steps.get(number, ""))
        for reason in why:
            write_line(f"    {reason}")


def _write_files(options: Options, result: dict[str, Any]) -> None:
    if options["iidfile"]:
        _write(options["iidfile"], str(result["id"]).encode())
    if options["metadata-file"]:
        from ....spec import jsonio

        metadata = {
            "containerimage.config.digest": result["id"],
            "containerimage.descriptor": result.get("descriptor"),
            "containerimage.digest": result["digest"],
            "image.name": ",".join(result.get("names", [])),
            "buildx.build.ref": f"default/default/{result['build']}",
        }
        _write(options["metadata-file"], jsonio.dump(metadata))


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as wrong:
        raise Unavailable("write", path, wrong.strerror or str(wrong)) from None


# -- the request ------------------------------------------------------------------------------------------------------


def build_request(options: Options, arguments: list[str]) -> tuple[BuildRequest, int]:
    """Return what is asked of the engine, and the descriptor of an archive that goes with it (-1 for none)."""
    where = arguments[0]
    fields: dict[str, Any] = _common(options)
    archive = -1
    if where == "-":
        if options["file"] == "-":
            raise Invalid("build", "-", "can't use stdin for both build context and dockerfile")
        archive, fields["archive_is_dockerfile"] = _standard_input()
        fields["archive"] = True
        fields["dockerfile"] = options["file"]
    elif where.startswith(REMOTE_PREFIXES) or where.endswith(".git"):
        fields["remote"] = where
        fields["dockerfile"] = options["file"]
    else:
        fields["context"] = _folder(where)
        _dockerfile(options["file"], fields)
    if options["file"] == "-":
        fields["dockerfile_text"] = _text(0, "-")
        fields["dockerfile"] = "-"
    return BuildRequest(**fields), archive


def _common(options: Options) -> dict[str, Any]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    given = dict(_argument(text) for text in options["build-arg"])
    arguments = {name: value for name, value in given.items() if value is not None}
    epoch = arguments.get("SOURCE_DATE_EPOCH", epoch)
    if options["timestamp"] >= 0:
        epoch = str(options["timestamp"])
    _check_refused(options)
    return {
        "tags": tuple(dict.fromkeys(options["tag"])),
        "build_args": arguments,
        "labels": dict(parse_label(text) for text in options["label"]),
        "target": options["target"],
        "platforms": tuple(part for text in options["platform"] for part in text.split(",") if part)
        or tuple(filter(None, [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")])),
        "no_cache": options["no-cache"],
        "no_cache_stages": tuple(part for text in options["no-cache-filter"] for part in text.split(",")),
        "pull": options["pull"],
        "network": "" if options["network"] in ("", "default") else options["network"],
        "extra_hosts": options["add-host"],
        "security_opt": options["security-opt"],
        "dns": options["dns"],
        "dns_options": options["dns-option"],
        "dns_search": options["dns-search"],
        **_ignored(options["ignorefile"]),
        "shm_bytes": options["shm-size"],
        "ulimits": options["ulimit"],
        "memory_bytes": options["memory"],
        "memory_swap_bytes": options["memory-swap"],
        "cpu_shares": options["cpu-shares"],
        "cpu_period_us": options["cpu-period"],
        "cpu_quota_us": options["cpu-quota"],
        "cpuset_cpus": options["cpuset-cpus"],
        "cpuset_mems": options["cpuset-mems"],
        "cgroup_parent": options["cgroup-parent"],
        "contexts": dict(_named_context(text) for text in options["build-context"]),
        "secrets": tuple(secret_source(text) for text in options["secret"]),
        "agents": tuple(agent_source(text) for text in options["ssh"]),
        "allow": options["allow"],
        "source_date_epoch_s": parse_epoch(epoch),
        "cache_from": tuple(_cache_source(text) for text in options["cache-from"]),
        "cache_to": tuple(_cache_destination(text) for text in options["cache-to"]),
        **_cache_mounts(options),
        "attestations": _attestations(options),
        "keep_failed": True,
        "verify": options["verify"],
        "secrets_policy": options["secrets-policy"],
        "squash": options["squash"],
    }


def _cache_source(text: str) -> CachePlace:
    found = places.source(places.fields_of(text))
    return found.replace(path=os.path.abspath(found.path)) if found.path else found


def _cache_destination(text: str) -> CachePlace:
    found = places.destination(places.fields_of(text))
    return found.replace(path=os.path.abspath(found.path)) if found.path else found


def _cache_mounts(options: Options) -> dict[str, tuple[CachePlace, ...]]:
    if not options["cache-mount-from"] and not options["cache-mount-to"]:
        return {}
    from .cachemounts import mount_place

    read = (mount_place(text, "--cache-mount-from", writes=False) for text in options["cache-mount-from"])
    written = (mount_place(text, "--cache-mount-to", writes=True) for text in options["cache-mount-to"])
    return {"cache_mounts_from": tuple(read), "cache_mounts_to": tuple(written)}


def _attestations(options: Options) -> tuple[Attestation, ...]:
    """Return what is attested: --attest, and its shorthands over it."""
    given = [dict(part.partition("=")[::2] for part in text.split(",")) for text in options["attest"]]
    for kind in (wanted.PROVENANCE, wanted.SBOM):
        text = options[kind]
        if text:
            off, on = text in ("false", "0"), text in ("true", "1")
            fields = {} if off or on else dict(part.partition("=")[::2] for part in text.split(","))
            given.append({"type": kind, **fields, **({"disabled": "true"} if off else {})})
    found = {fields.get("type", ""): wanted.attestation(fields) for fields in given}
    return tuple(one for one in found.values() if one is not None)


def _ignored(path: str) -> dict[str, str]:
    """Return the text of --ignorefile, if there is one. Raises NotFound."""
    return {"ignore_text": _read(path, path).decode(errors="surrogateescape")} if path else {}


def check_isolation(verb: str, name: str) -> None:
    """Raise Unsupported for an isolation that only other systems have; a container's is more than buildah's chroot."""
    if name not in ("", "default", "oci", "rootless", "chroot"):
        cause = "steps run in containers with namespaces of their own, and in nothing else"
        raise Unsupported(verb, f"--isolation={name[:40]}", cause, hint="leave it away")


def _check_refused(options: Options) -> None:
    """Raise Unsupported for values that only other systems have."""
    check_isolation("build", options["isolation"])
    if not options["disable-content-trust"]:
        cause = "Notary's signatures of tags are read no more"
        raise Unsupported("build", "--disable-content-trust=false", cause, hint="name the base image by its digest")


def _argument(text: str) -> tuple[str, str | None]:
    """Return a build argument; a name alone has the value of our environment, None without one."""
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f'invalid build-arg "{text}"', "write NAME=value")
    return name, value if equals else os.environ.get(name)


def _named_context(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"invalid context value: {text}, expected key=value")
    if value.startswith(LAYOUT_PREFIX):
        return name, LAYOUT_PREFIX + os.path.abspath(value.removeprefix(LAYOUT_PREFIX))
    if "://" in value or value.endswith(".git"):
        return name, value
    return name, _folder(value)


def secret_source(text: str) -> SecretSource:
    """Return what one --secret gives. Raises UsageError, NotFound."""
    from base64 import b64encode

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.get("id", "") or os.path.basename(fields.get("src", fields.get("source", "")))
    path = fields.get("src", fields.get("source", ""))
    variable = fields.get("env", "")
    if not name:
        raise UsageError(
            f"invalid secret {text.partition('=')[0]}", "write --secret id=NAME,src=FILE or id=NAME,env=VAR"
        )
    if not path and not variable and fields.get("type") != "file":
        variable = name if name in os.environ else ""
    if variable:
        data = os.environb.get(os.fsencode(variable))
        if data is None:
            raise NotFound("read", f"secret {name}", f"the variable {variable} is not set")
    else:
        data = _read(path or name, f"secret {name}")
    return SecretSource(id=name, data=b64encode(data).decode())


def agent_source(text: str) -> AgentSource:
    """Return what one --ssh gives. Raises NotFound."""
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        hint = "start an agent (ssh-agent), or name its socket: --ssh default=/path"
        raise NotFound(
            "use", f"ssh {name}", "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set", hint=hint
        )
    return AgentSource(id=name or "default", path=os.path.abspath(path))


def _folder(path: str) -> str:
    found = os.path.abspath(path)
    if not os.path.isdir(found):
        cause = f'unable to prepare context: path "{path}" not found'
        raise NotFound("build", path, cause, hint="name a folder, a URL, or - for standard input")
    return found


def _dockerfile(path: str, fields: dict[str, Any]) -> None:
    """Say where the Dockerfile is: by name in the context, or its text where it lies elsewhere."""
    if not path or path == "-":
        return
    found = os.path.abspath(path)
    inside = os.path.relpath(found, fields["context"])
    if os.path.exists(found) and not inside.startswith("../"):
        fields["dockerfile"] = inside
    elif os.path.exists(found):
        fields["dockerfile"] = path
        fields["dockerfile_text"] = _read(found, path).decode(errors="surrogateescape")
        if os.path.exists(f"{found}.dockerignore"):
            fields["ignore_text"] = _read(f"{found}.dockerignore", path).decode(errors="surrogateescape")
    else:
        fields["dockerfile"] = path  # docker's old way: a name in the context


def _standard_input() -> tuple[int, bool]:
    """Return a descriptor of standard input from its start, and whether it is a Dockerfile and no archive."""
    if os.isatty(0):
        raise Invalid("build", "-", "standard input is a terminal", hint="redirect a Dockerfile or an archive to it")
    copy = os.memfd_create("context", os.MFD_CLOEXEC) if not _seekable(0) else os.dup(0)
    if not _seekable(0):
        head = os.read(0, MAGIC_BYTES)
        while len(head) < MAGIC_BYTES and (more := os.read(0, MAGIC_BYTES - len(head))):
            head += more
        os.close(copy)
        copy = _piped(head)
    else:
        head = os.pread(0, MAGIC_BYTES, os.lseek(0, 0, os.SEEK_CUR))
    return copy, not _is_archive(head)


def _piped(head: bytes) -> int:
    """Return a pipe with head and then the rest of standard input, carried by a thread."""
    import threading

    reading, writing = os.pipe()

    def carry() -> None:
        data = head
        try:
            while data:
                view = memoryview(data)
                while view:
                    view = view[os.write(writing, view) :]
                data = os.read(0, 1 << 16)
        except OSError:
            pass
        finally:
            os.close(writing)

    threading.Thread(target=carry, daemon=True).start()
    return reading


def _seekable(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _is_archive(head: bytes) -> bool:
    compressed = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
    return head.startswith(compressed) or head[257:262] == b"ustar"


def _read(path: str, subject: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(DOCKERFILE_BYTES_MAX + 1)
    except OSError as wrong:
        raise NotFound("read", subject, f"{path}: {wrong.strerror}") from None
    if len(data) > DOCKERFILE_BYTES_MAX:
        raise Invalid("read", subject, f"it has more than {DOCKERFILE_BYTES_MAX} bytes", code="E0212")
    return data


def _text(fd: int, subject: str) -> str:
    data = b""
    while piece := os.read(fd, 65536):
        data += piece
        if len(data) > DOCKERFILE_BYTES_MAX:
            raise Invalid("read", subject, f"it has more than {DOCKERFILE_BYTES_MAX} bytes", code="E0212")
    return data.decode(errors="surrogateescape")


def _flag(name: str, help: str, kind: Kind = STRING, short: str = "", default: object = "") -> Flag:
    return Flag(name, short, kind, help, default=default)


_ENTITLEMENTS = '"network.host", "security.insecure", "device[=NAME]"'
BUILD = Command(
    _build,
    "Build an image from a Dockerfile",
    "[OPTIONS] PATH | URL | -",
    flags=(
        _flag("add-host", 'Add a custom host-to-IP mapping ("host:ip")', LIST),
        _flag("allow", f"Allow extra privileged entitlement ({_ENTITLEMENTS})", LIST),
        _flag("annotation", 'Add annotation to the image ("[PLACE[,PLACE]:]KEY=VALUE")', LIST),
        _flag("attest", 'Attestation parameters ("type=provenance,mode=max", "type=sbom")', LIST),
        _flag("build-arg", "Set build-time variables", LIST),
        _flag("build-context", 'Additional build contexts ("name=path")', LIST),
        _flag("cache-from", 'External cache sources ("user/app:cache", "type=local,src=path/to/dir")', LIST),
        _flag(
            "cache-mount-from",
            "Where cache mounts come from that are not here (a folder or a registry's reference)",
            LIST,
        ),
        _flag("cache-mount-to", "Where the build's cache mounts go (a folder or a registry's reference)", LIST),
        _flag("cache-to", 'Cache export destinations ("user/app:cache", "type=local,dest=path/to/dir")', LIST),
        _flag("call", 'Set method for evaluating build ("check", "outline", "targets", "graph")'),
        _flag("cgroup-parent", 'Set the parent cgroup for the "RUN" instructions during build'),
        _flag("check", 'Shorthand for "--call=check"', BOOL, default=False),
        _flag("compress", "Compress the build context using gzip", BOOL, default=False),
        _flag("cpu-period", "Limit the CPU CFS (Completely Fair Scheduler) period", INT, default=0),
        _flag("cpu-quota", "Limit the CPU CFS (Completely Fair Scheduler) quota", INT, default=0),
        _flag("cpu-shares", "CPU shares (relative weight)", INT, "c", default=0),
        _flag("cpuset-cpus", 'CPUs in which to allow execution ("0-3", "0,1")'),
        _flag("cpuset-mems", 'MEMs in which to allow execution ("0-3", "0,1")'),
        _flag("disable-content-trust", "Skip image verification", BOOL, default=True),
        _flag("dns", 'Set custom DNS servers of the "RUN" instructions', LIST),
        _flag("dns-option", 'Set DNS options of the "RUN" instructions', LIST),
        _flag("dns-search", 'Set custom DNS search domains of the "RUN" instructions', LIST),
        _flag("file", 'Name of the Dockerfile (default: "PATH/Dockerfile")', STRING, "f"),
        _flag("force-rm", "Always remove intermediate containers", BOOL, default=False),
        _flag("format", "Format the output of --why (json)"),
        _flag("iidfile", "Write the image ID to a file"),
        _flag("ignorefile", "Name of the file that is read instead of .dockerignore"),
        _flag("isolation", "Container isolation technology"),
        _flag("label", "Set metadata for an image", LIST),
        _flag("load", 'Shorthand for "--output=type=docker"', BOOL, default=False),
        _flag("memory", "Memory limit", BYTES, "m", default=0),
        _flag("memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap", _SWAP, default=0),
        _flag("metadata-file", "Write build result metadata to a file"),
        _flag("network", 'Set the networking mode for the "RUN" instructions during build'),
        _flag("no-cache", "Do not use cache when building the image", BOOL, default=False),
        _flag("no-cache-filter", "Do not cache specified stages", LIST),
        _flag("on-error", 'What a failing step does ("fail", "shell")', default="fail"),
        _flag("output", 'Output destination ("type=local,dest=path")', LIST, "o"),
        _flag("platform", "Set target platform for build", LIST),
        _flag("progress", 'Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")'),
        _flag("provenance", 'Shorthand for "--attest=type=provenance" ("true", "false", "mode=max")'),
        _flag("pull", "Always attempt to pull all referenced images", BOOL, default=False),
        _flag("push", 'Shorthand for "--output=type=registry"', BOOL, default=False),
        _flag("quiet", "Suppress the build output and print image ID on success", BOOL, "q", default=False),
        _flag("rm", "Remove intermediate containers after a successful build", BOOL, default=True),
        _flag("sbom", 'Shorthand for "--attest=type=sbom" ("true", "false")'),
        _flag("secret", 'Secret to expose to the build ("id=mysecret[,src=/local/secret]")', LIST),
        _flag("secrets-policy", 'What a secret in the image does ("block", "warn", "off")', default="block"),
        _flag("security-opt", 'Security options of the "RUN" instructions', LIST),
        _flag("shm-size", "Shared memory size for build containers", BYTES, default=0),
        _flag("squash", "Squash newly built layers into a single new layer", BOOL, default=False),
        _flag("ssh", 'SSH agent socket or keys to expose to the build ("default|<id>[=<socket>]")', LIST),
        _flag("tag", 'Image identifier ("[registry/]repository[:tag]")', LIST, "t"),
        _flag("target", "Set the target build stage to build"),
        _flag("timestamp", "Seconds since the epoch: no time in the image is later", INT, default=-1),
        Flag("step", "", INT, "Of build logs: the number of a step", default=0, hidden=True),
        Flag("title", "", STRING, "What stands before each line of the progress", default="", hidden=True),
        _flag("ulimit", "Ulimit options", _ULIMIT),
        _flag("verify", "Build twice, and name the first file that differs", BOOL, default=False),
        _flag("why", "Tell which input made each step miss the cache", BOOL, default=False),
    ),
    refused=("builder",),
    arguments=(1, None),
    aliases=("build", "builder build", "image build", "buildx build"),
)
