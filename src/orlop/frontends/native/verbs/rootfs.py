"""The verbs `containers.*` that are about what lies in a container's root file system."""

import stat

from ....engine.rootfs import commit, copy, difference
from ....spec.container import CommitRequest
from .call import Args, Call, Verb


class Named(Args):
    container: str


class Path(Args):
    container: str
    path: str


class PutArchive(Args):
    container: str
    path: str
    owned_by_user: bool = False
    owner: str = ""
    mode: int | None = None

    def check(self) -> None:
        if self.mode is not None and not 0 <= self.mode <= 0o7777:
            raise ValueError("a mode is at most 07777")


class Commit(Args):
    request: CommitRequest


def _get_archive(call: Call, args: Path) -> object:
    copy.read(call.engine, args.container, args.path, _stream(call, "containers.get_archive"))
    return {}


def _put_archive(call: Call, args: PutArchive) -> object:
    stream = _stream(call, "containers.put_archive")
    given = copy.Given(of_user=args.owned_by_user, owner=args.owner, mode=args.mode)
    copy.write(call.engine, args.container, args.path, stream, given)
    return {}


def _export(call: Call, args: Named) -> object:
    difference.export(call.engine, args.container, _stream(call, "containers.export"))
    return {}


def _stream(call: Call, verb: str) -> int:
    return call.only_fd(verb, "a stream socket", stat.S_ISSOCK)


VERBS: dict[str, Verb] = {
    "containers.stat_path": Verb(Path, lambda call, args: copy.stat(call.engine, args.container, args.path)),
    "containers.get_archive": Verb(Path, _get_archive, lasts=True),
    "containers.put_archive": Verb(PutArchive, _put_archive, lasts=True),
    "containers.changes": Verb(Named, lambda call, args: difference.changes(call.engine, args.container)),
    "containers.export": Verb(Named, _export, lasts=True),
    "containers.commit": Verb(Commit, lambda call, args: {"id": commit.commit(call.engine, args.request)}),
}
