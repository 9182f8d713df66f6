"""Secrets at rest: encrypted and authenticated under a key that lies elsewhere than the data, if it can.

The key is the content of the first of these files:
    $ORLOP_SECRETS_KEY                              whatever its user provides: 32 bytes or more, nobody else's to read
    $CREDENTIALS_DIRECTORY/orlop-secrets-key        what systemd decrypts for its unit (LoadCredentialEncrypted=, a TPM)
    /etc/orlop/secrets.key, ~/.config/orlop/secrets.key    made by us, where ORLOP_ROOT is root's, a user's default
    $ORLOP_ROOT/secrets.key                         made by us, where ORLOP_ROOT is another directory

A sealed file is MAGIC, the name of its key (8 bytes), a nonce (32), a tag (32) and what was encrypted. Python's
standard library has no cipher (ADR 22), so it is encrypt-then-MAC of what it has: HMAC-SHA-512 of key and nonce gives
two keys that are used once; SHAKE-256 of one of them is the key stream; HMAC-SHA-256 under the other is the tag, over
what the file is about and what was encrypted.

Invariants:
1. A nonce is drawn for each sealing, so no key stream is used twice.
2. The tag is checked before anything is decrypted; it covers whose file it is, so none can be put in another's place.
3. No key is made while something is sealed under another one: a key that was lost is told, never replaced.
4. A key is renewed beside the old one (NEXT): what is sealed names its key, so at every instant each file opens with
   one of the two. The new one takes the old one's place when nothing is sealed under that any more.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat

from ..linux.path import fsync_directory
from ..spec.errors import Denied, Invalid, Unavailable

MAGIC = b"orlop sealed 1\n"
KEY_BYTES, KEY_BYTES_MAX = 32, 4096
KEY_FILE, CREDENTIAL, NEXT = "secrets.key", "orlop-secrets-key", ".next"
_NAME_BYTES, _NONCE_BYTES, _TAG_BYTES = 8, 32, 32
OVERHEAD_BYTES = len(MAGIC) + _NAME_BYTES + _NONCE_BYTES + _TAG_BYTES
# The directory of the data, and where the settings of the same user lie.
_SETTINGS = (("/var/lib/orlop", "/etc/orlop"), ("/.local/share/orlop", "/.config/orlop"))


class Key:
    """The key of one engine's secrets, read from its file whenever it is needed."""

    def __init__(self, root: str) -> None:
        given, credentials = os.environ.get("ORLOP_SECRETS_KEY", ""), os.environ.get("CREDENTIALS_DIRECTORY", "")
        credential = f"{credentials}/{CREDENTIAL}"
        self.is_ours = not given and not (credentials and os.path.exists(credential))
        self.path = _place(root) if self.is_ours else given or credential

    def make(self) -> None:
        """Make the key where there is none and it is ours to make. Raises OSError."""
        if self.is_ours and not self.is_renewed:
            self._make(self.path)

    @property
    def is_renewed(self) -> bool:
        """Whether a renewal has begun and has not ended."""
        return self.is_ours and os.path.lexists(self.path + NEXT)

    def renew(self) -> None:
        """Begin a renewal, or go on with one: from now on it is the new key that seals. Raises OSError."""
        self._make(self.path + NEXT)

    def end_renewal(self) -> None:
        """Put the new key in the old one's place: nothing is sealed under that any more. Raises OSError."""
        os.replace(self.path + NEXT, self.path)
        fsync_directory(os.path.dirname(self.path))

    def _make(self, path: str) -> None:
        if os.path.lexists(path):
            return
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        new = f"{path}.{os.getpid()}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                file.write(os.urandom(KEY_BYTES))
                os.fsync(fd)
            os.link(new, path)  # not over one that another engine has made meanwhile
        except FileExistsError:
            pass
        finally:
            os.unlink(new)
        fsync_directory(os.path.dirname(path))

    def seal(self, data: bytes, about: bytes) -> bytes:
        """Return data so that only this key opens it, for the same `about`. Raises Unavailable, Denied, Invalid."""
        master = _read(self._sealing)
        nonce = os.urandom(_NONCE_BYTES)
        stream, tags = _keys(master, nonce)
        hidden = _xor(data, stream)
        head = MAGIC + _name(master) + nonce
        return head + _tag(tags, head, about, hidden) + hidden

    def has_sealed(self, sealed: bytes) -> bool:
        """Tell whether it is the key that seals now which has sealed it. Raises what `seal` raises."""
        return sealed.startswith(MAGIC + _name(_read(self._sealing)))

    @property
    def _sealing(self) -> str:
        return self.path + NEXT if self.is_renewed else self.path

    def open(self, sealed: bytes, about: bytes, subject: str, earlier: str = "") -> bytes:
        """Return what was sealed. Raises Invalid for a file that is damaged or another's, and what `seal` raises.

        earlier: the file of a key that it may be sealed with too.
        """
        at = len(MAGIC) + _NAME_BYTES + _NONCE_BYTES
        head, tag, hidden = sealed[:at], sealed[at : at + _TAG_BYTES], sealed[at + _TAG_BYTES :]
        if len(sealed) < OVERHEAD_BYTES or not is_sealed(sealed):
            raise _damaged(subject)
        master = self._named(head[len(MAGIC) : -_NONCE_BYTES], subject, earlier)
        stream, tags = _keys(master, head[-_NONCE_BYTES:])
        if not hmac.compare_digest(tag, _tag(tags, head, about, hidden)):
            raise _damaged(subject)
        return _xor(hidden, stream)

    def _named(self, name: bytes, subject: str, earlier: str) -> bytes:
        """Return the key of this name: the one that seals, the one before it, or an earlier one."""
        for path in (self._sealing, *((self.path,) if self.is_renewed else ()), *((earlier,) if earlier else ())):
            master = _read(path)
            if _name(master) == name:
                return master
        hint = "put its key back, or remove it and create it again"
        raise Unavailable("open", subject, f"it is sealed with another key than {self.path}", hint=hint)


def _read(path: str) -> bytes:
    hint = "put the key back, or remove the secrets and create them again"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as wrong:
        cause = f"their key {path} can't be read: {os.strerror(wrong.errno or 0).lower()}"
        raise Unavailable("use", "secrets", cause, hint=hint) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid("use", "secrets", f"their key {path} is no file", hint=hint)
        if found.st_mode & 0o077:
            cause = f"others may read their key {path}"
            raise Denied("use", "secrets", cause, hint=f"chmod go= {path}")
        master = os.read(fd, KEY_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if not KEY_BYTES <= len(master) <= KEY_BYTES_MAX:
        cause = f"their key {path} has not {KEY_BYTES} to {KEY_BYTES_MAX} bytes"
        raise Invalid("use", "secrets", cause, hint=f"make one: head -c {KEY_BYTES} /dev/urandom")
    return master


def is_sealed(data: bytes) -> bool:
    """Tell whether a file begins as a sealed one does."""
    return data.startswith(MAGIC)


def _place(root: str) -> str:
    for data, settings in _SETTINGS:
        if root == data or (data.startswith("/.") and root.endswith(data)):
            return f"{root.removesuffix(data)}{settings}/{KEY_FILE}"
    return f"{root}/{KEY_FILE}"


def _name(master: bytes) -> bytes:
    return hmac.digest(master, b"orlop secrets: name of the key", "sha256")[:_NAME_BYTES]


def _keys(master: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    both = hmac.digest(master, b"orlop secrets: keys of a file\0" + nonce, "sha512")
    return both[:32], both[32:]


def _tag(key: bytes, head: bytes, about: bytes, hidden: bytes) -> bytes:
    return hmac.digest(key, head + len(about).to_bytes(8, "big") + about + hidden, "sha256")


def _xor(data: bytes, key: bytes) -> bytes:
    stream = hashlib.shake_256(key).digest(len(data))
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")


def _damaged(subject: str) -> Invalid:
    hint = "remove it and create it again, or restore its file from a copy"
    return Invalid("open", subject, "its file is damaged, or another one's: it does not fit its seal", hint=hint)
