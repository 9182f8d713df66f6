"""What a TLS connection to one registry trusts and shows."""

from __future__ import annotations

import os
import ssl
import threading

from orlop.spec.errors import Invalid


class Tls:
    """Compared by value. verify: whether the server's certificate must be valid; False only where the user said so.

    authorities: files of certificates trusted besides the system's. identities: (certificate, key) files that prove
    who we are.
    """

    __slots__ = ("_context", "_lock", "authorities", "identities", "verify")

    def __init__(
        self, *, verify: bool = True, authorities: tuple[str, ...] = (), identities: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.verify = verify
        self.authorities = authorities
        self.identities = identities
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tls) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def _facts(self) -> tuple[object, ...]:
        return self.verify, self.authorities, self.identities

    def unverified(self) -> Tls:
        """Return the same without a look at the server's certificate."""
        return Tls(verify=False, authorities=self.authorities, identities=self.identities)

    def context(self) -> ssl.SSLContext:
        """Return the context, made once: reading the system's authorities takes 20 ms. Raises Invalid."""
        with self._lock:
            if self._context is None:
                self._context = self._make()
            return self._context

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        file = ""
        try:
            for file in self.authorities:
                context.load_verify_locations(cafile=file)
            for file, key in self.identities:
                context.load_cert_chain(file, key)
        except OSError as wrong:  # ssl.SSLError is one
            raise Invalid("use", f"certificate {file}", wrong.strerror or str(wrong)) from None
        return context


DEFAULT_TLS = Tls()


def of_directory(path: str, *, verify: bool = True) -> Tls | None:
    """Return what a certs.d directory of docker or podman says: NAME.crt, and NAME.cert with NAME.key; None without.

    Source: docker's manual, "Verify repository client with certificates"; containers-certs.d(5).
    """
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return None
    authorities = tuple(f"{path}/{name}" for name in names if name.endswith(".crt"))
    identities = []
    for name in names:
        if name.endswith(".cert"):
            key = name[: -len(".cert")] + ".key"
            if key not in names:
                hint = "put the key beside it, or take the certificate away"
                raise Invalid("use", f"certificate {path}/{name}", f"there is no key {key} for it", hint=hint)
            identities.append((f"{path}/{name}", f"{path}/{key}"))
    if not authorities and not identities:
        return None
    return Tls(verify=verify, authorities=authorities, identities=tuple(identities))
