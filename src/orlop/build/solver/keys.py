"""Cache keys: digests of what a step is made from, and the same inputs by name, for people.

A key covers everything that can change what a step leaves: the tree below it, the command with its environment, what is
mounted, the platform. It covers no time, no secret's value, no place of the host (SEC-50).
"""

from __future__ import annotations

import hashlib

from orlop.spec import jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orlop.spec.platform import Platform

    from .. import graph

FORMAT = "5"  # a change of what steps leave, with the same inputs, changes this


class Key:
    """A key that is being put together. inputs: name -> text, as people may see it; `files` beside it: what stands for
    many files.
    """

    def __init__(self, kind: str, platform: Platform | None) -> None:
        self.inputs: dict[str, str] = {"kind": f"{FORMAT} {kind}", "platform": str(platform or "")}
        self.files: dict[str, str] = {}
        self._hidden: dict[str, str] = {}

    def add(self, name: str, value: str) -> None:
        self.inputs[name] = value

    def add_hidden(self, name: str, value: str, salt: bytes) -> None:
        """Add what nobody should find on disk: people see a digest that only this engine can make."""
        self.inputs[name] = hashlib.blake2b(
            value.encode(errors="surrogateescape"), key=salt, digest_size=16
        ).hexdigest()
        self._hidden[name] = value

    def hex(self) -> str:
        """Return the key. It is the same on every engine."""
        return hashlib.sha256(jsonio.dump(sorted({**self.inputs, **self._hidden}.items()))).hexdigest()


def run_key(run: graph.Run, base: str, mounts: dict[str, str], platform: Platform | None, salt: bytes) -> Key:
    """Return the key of a command. base: the ChainID below; mounts: what each mount of content holds, by target.

    Values of the environment may be what nobody should find on disk.
    """
    key = Key("run", platform)
    key.add("base image or earlier step", base)
    key.add("command", jsonio.dump(list(run.argv)).decode())
    for entry in sorted(run.env):
        name, _, value = entry.partition("=")
        key.add_hidden(f"variable {name}", value, salt)
    key.add("working directory", run.cwd)
    key.add("user", run.user)
    key.add("network", run.network)
    key.add("security", run.security)
    for number, mount in enumerate(run.mounts):
        for name, value in described(mount).items():
            key.add(f"mount {number} {name}".rstrip(), value)
    for target, content in mounts.items():
        key.add(f"content of mount {target}", content)
    return key


def described(mount: graph.Mount) -> dict[str, str]:
    """Return what of a mount counts, content aside: its kind as "", and its fields."""
    fields = {"": type(mount).__name__}
    for name in vars(mount):
        value = getattr(mount, name)
        if name not in ("source", "data", "required") and isinstance(value, str | int | bool):
            fields[name] = str(value)
    data = getattr(mount, "data", None)
    if isinstance(data, bytes):
        fields["data"] = hashlib.sha256(data).hexdigest()
    return fields


def difference(now: dict[str, str], before: dict[str, str]) -> list[str]:
    """Return the names of the inputs that differ, as sentences."""
    told = []
    for name in sorted(now.keys() | before.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if old is None:
            told.append(f"{name} is new")
        elif new is None:
            told.append(f"{name} is gone")
        elif name.startswith(("file ", "variable ", "content ")):
            told.append(f"{name} changed ({old[:8]} -> {new[:8]})")
        else:
            told.append(f"{name} changed: {old[:100]} -> {new[:100]}")
    return told
