"""ELF files for tests, made byte by byte: small, of any machine, needing whatever a test wants."""

from __future__ import annotations

import struct

EM_X86_64, EM_386, EM_AARCH64, EM_S390 = 62, 3, 183, 22


def elf(
    *,
    machine: int = EM_X86_64,
    bits: int = 64,
    order: str = "<",
    interpreter: str = "",
    needed: tuple[str, ...] = (),
    rpath: str = "",
    runpath: str = "",
    flags_1: int = 0,
) -> bytes:
    """Return a file with the program headers and the dynamic section that say this, and nothing that could run."""
    wide = bits == 64
    header_bytes, entry_bytes = (64, 56) if wide else (52, 32)
    strings = b"\0"
    tags: list[tuple[int, int]] = []
    for tag, texts in ((1, needed), (15, (rpath,) if rpath else ()), (29, (runpath,) if runpath else ())):
        for text in texts:
            tags.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    if flags_1:
        tags.append((0x6FFFFFFB, flags_1))
    kinds = [1, 2] + ([3] if interpreter else [])
    at = header_bytes + entry_bytes * len(kinds)
    interp = interpreter.encode() + b"\0"
    dynamic_at = at + len(interp)
    base = 0x400000  # addresses differ from offsets, as in real files
    tags += [(5, base + dynamic_at + (len(tags) + 3) * (16 if wide else 8)), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *tag) for tag in tags)
    total = dynamic_at + len(dynamic) + len(strings)
    places = {1: (0, total), 2: (dynamic_at, len(dynamic)), 3: (at, len(interp))}
    programs = b""
    for kind in kinds:
        offset, size = places[kind]
        if wide:
            programs += struct.pack(order + "IIQQQQQQ", kind, 4, offset, base + offset, base + offset, size, size, 1)
        else:
            programs += struct.pack(order + "IIIIIIII", kind, offset, base + offset, base + offset, size, size, 4, 1)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    layout = order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH")
    header = struct.pack(layout, 3, machine, 1, 0, header_bytes, 0, 0, header_bytes, entry_bytes, len(kinds), 0, 0, 0)
    return ident + header + programs + interp + dynamic + strings
