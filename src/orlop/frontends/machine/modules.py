"""A kernel's modules: which there are, what each needs to be loaded before it, by their own .modinfo sections.

Read from the modules themselves, not from modules.dep: a package that was only unpacked has none.
"""

from __future__ import annotations

import re
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What containers use and distributions build as modules; each brings what it depends on.
FOR_CONTAINERS = (
    "overlay fuse loop squashfs erofs veth bridge br_netfilter macvlan ipvlan dummy tun vxlan nf_tables nft_chain_nat "
    "nft_ct nft_nat nft_masq nft_redir nft_reject_inet nft_fib_inet nft_log nft_dup_ipv4 nft_dup_ipv6 nft_compat "
    "nf_conntrack_netlink xt_MASQUERADE "
    "xt_addrtype xt_conntrack xt_comment xt_mark iptable_nat iptable_filter ip6table_nat ip6table_filter "
    "sch_tbf sch_netem cls_u32 ifb zram quota_v2"
).split()
_ENDS = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def find(directory: Path) -> dict[str, Path]:
    """Return name -> file of the modules below a /lib/modules/VERSION."""
    found = (path for path in (directory / "kernel").rglob("*.ko*") if path.name.endswith(_ENDS))
    return {normal(path.name.partition(".ko")[0]): path for path in found}


def read(path: Path) -> bytes:
    """Return a module as the kernel loads it. Raises OSError, also for a compression that nobody here can undo."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        import lzma

        return lzma.decompress(data)
    if path.suffix == ".gz":
        import gzip

        return gzip.decompress(data)
    if path.suffix == ".zst":
        from ...linux import zstd

        decompressor, made = zstd.Decompressor(zstd.load()), b""
        while not decompressor.eof and (piece := decompressor.decompress(b"" if made else data)):
            made += piece
        return made
    return data


def dependencies(modules: dict[str, Path], wanted: Iterable[str]) -> dict[str, list[str]]:
    """Return for each wanted module, and each it needs, the modules to load before it, in order.

    A name that this kernel has no module for is built in, or not there; it is left out.
    """
    needs: dict[str, list[str]] = {}
    pending = [name for name in wanted if name in modules]
    while pending:
        name = pending.pop()
        if name not in needs:
            needs[name] = [normal(need) for need in _info(modules[name], "depends")[0].split(",") if need]
            pending += needs[name]
    return {name: _before(name, needs)[:-1] for name in needs}


def aliases(path: Path) -> list[str]:
    """Return the names under which the kernel asks for a module ("fs-overlay")."""
    return _info(path, "alias")


def normal(stem: str) -> str:
    """Return a module's name as the kernel writes it."""
    return stem.replace("-", "_")


def _before(name: str, needs: dict[str, list[str]]) -> list[str]:
    order = [member for need in needs[name] for member in _before(need, needs)]
    return [*dict.fromkeys(order), name]


def _info(path: Path, key: str) -> list[str]:
    """Return the values of one key of a module's .modinfo section (NUL-separated "key=value")."""
    found = re.findall(rb"\0" + key.encode() + rb"=([^\0]*)", b"\0" + read(path))
    return [value.decode() for value in found] or [""]
