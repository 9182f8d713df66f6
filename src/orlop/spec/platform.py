"""Platforms: for which machine an image is made.

The written form is `os[/architecture[/variant]]`, as in `--platform linux/arm64/v8`. Architectures carry Go's
names (amd64, arm64); the kernel's (x86_64, aarch64) and other usual spellings are understood.
Source: OCI image-spec, image-index.md, "platform"; containerd's platforms package for the spellings.
"""

import os

from .errors import Invalid
from .record import Record

TEXT_LENGTH_MAX = 128

_ARCHITECTURES = {  # spelling -> (architecture, variant)
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64el": ("mips64le", ""),
}
_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd"))
_KNOWN = frozenset("386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x".split())
_OTHER_SYSTEMS = frozenset("aix android dragonfly illumos js netbsd openbsd plan9 solaris wasip1".split())
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")


class Platform(Record):
    """os and architecture are Go's names; variant "" means the usual one of the architecture."""

    architecture: str
    os: str
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""
    json_names = {"os_version": "os.version", "os_features": "os.features"}

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Return the platform that `os/architecture[/variant]` names, or one of the first two alone, normalised.

        Raises Invalid.
        """
        parts = text.lower().split("/")
        if len(parts) == 1:  # as containerd reads it: a system, or an architecture of Linux
            if parts[0] in _SYSTEMS:
                parts.append(os.uname().machine)
            elif parts[0] in _ARCHITECTURES or parts[0] in _KNOWN:
                parts.insert(0, "linux")
        malformed = len(text) > TEXT_LENGTH_MAX or not 2 <= len(parts) <= 3
        if malformed or not all(part and _ALLOWED.issuperset(part) for part in parts):
            shown = text[:TEXT_LENGTH_MAX]
            what = "cannot parse platform specifier" if len(parts) > 3 else "unknown operating system or architecture"
            raise Invalid(
                "read",
                f"platform {shown!r}",
                f'"{shown}": {what}: invalid argument',  # containerd's words
                hint="write it like linux/amd64 or linux/arm64/v8",
                code="E0219",
            )
        return cls(os=parts[0], architecture=parts[1], variant="".join(parts[2:])).normalized()

    @classmethod
    def of_machine(cls, machine: str) -> "Platform":
        """Return the Linux platform of a machine as uname(2) names it."""
        return cls(os="linux", architecture=machine).normalized()

    def normalized(self) -> "Platform":
        """Return the platform under the names that images use, without a variant that goes without saying."""
        architecture, variant = _ARCHITECTURES.get(self.architecture, (self.architecture, ""))
        variant = self.variant or variant
        if variant.isdigit():
            variant = "v" + variant
        if _DEFAULT_VARIANTS.get(architecture) == variant:
            variant = ""
        return self.replace(architecture=architecture, variant=variant)

    @property
    def is_known(self) -> bool:
        """Tell whether Go has a name for both."""
        return self.os in _SYSTEMS | _OTHER_SYSTEMS and self.architecture in _KNOWN | {"wasm"}

    def runs(self, image: "Platform") -> bool:
        """Say whether an image of that platform runs on this machine as it is, without emulation."""
        mine, other = self.normalized(), image.normalized()
        return (mine.os, mine.architecture) == (other.os, other.architecture) and level(mine) >= level(other)


def level(platform: Platform) -> int:
    """Return the number of a variant: higher ones run what lower ones run (arm v5 to v8, amd64 v1 to v4)."""
    digits = (platform.variant or _DEFAULT_VARIANTS.get(platform.architecture, "")).removeprefix("v")
    return int(digits) if digits.isascii() and digits.isdigit() else 0
