"""Guards of images, archives and registries."""

from __future__ import annotations

from .model import Guard

GUARDS = (
    Guard(
        "an archive's members are resolved in its tree",
        ("SEC-40",),
        ("security/test_hostile_archives.py::test_nothing_outside_changes",),
        (
            (
                "linux/path.py",
                '    return openat2(root, path or ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS '
                "| resolve)\n",
                '    return os.open(path or ".", flags | os.O_CLOEXEC, mode, dir_fd=root)\n',
            ),
        ),
    ),
    Guard(
        "a member's name that leads out is refused",
        ("SEC-40",),
        ("security/test_hostile_archives.py::test_nothing_outside_changes",),
        (
            (
                "snapshot/extract.py",
                "                if not parts:\n"
                '                    raise self._refused(member, "it leads out of the root directory")\n'
                "                parts.pop()\n",
                "                parts = parts[:-1]\n",
            ),
        ),
    ),
    Guard(
        "what stands in a member's place goes first",
        ("SEC-41",),
        ("security/test_hostile_archives.py::test_a_replaced_symlink_is_a_file_of_its_own",),
        (
            (
                "snapshot/extract.py",
                "_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC\n",
                "_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC\n",
            ),
        ),
    ),
    Guard(
        "a stream that grows beyond reason is left",
        ("SEC-42",),
        (
            "security/test_archive_bombs.py::test_a_bomb_is_refused_in_bounded_memory_and_leaves_nothing"
            "[zstd of 8 GiB of zeros]",
        ),
        (
            (
                "content/compression.py",
                "        if self._bytes_out > RATIO_FREE_BYTES and self._bytes_out > RATIO_MAX * self._bytes_in:\n",
                "        if False:\n",
            ),
        ),
    ),
    Guard(
        "a blob has the digest and the size that were announced",
        ("SEC-43",),
        ("security/test_lying_registries.py::test_a_lie_becomes_no_image",),
        (
            (
                "content/store.py",
                "        if wanted is not None and wanted != self.digest:\n",
                "        if False:\n",
            ),
        ),
    ),
    Guard(
        "a digest is lower-case hex of its length",
        ("SEC-44",),
        ("unit/test_digest.py::test_anything_else_is_refused_with_its_text",),
        (("spec/digest.py", "        if not _HEX.issuperset(digits):\n", "        if False:\n"),),
    ),
    Guard(
        "a document is one kind of manifest",
        ("SEC-45",),
        ("contract/test_registry_server.py::test_a_manifest_that_could_be_another_is_refused",),
        (
            (
                "spec/image.py",
                "        if name in document:\n            raise",
                "        if name is None:\n            raise",
            ),
            ("spec/image.py", "    if declared and declared != media_type:\n", "    if False:\n"),
        ),
    ),
    Guard(
        "passwords stay with the registry",
        ("SEC-46",),
        ("security/test_lying_registries.py::test_no_secret_goes_to_another_host",),
        (
            (
                "image/registry/client.py",
                '            sent = authorizer.header(scopes) if is_own else ""\n',
                "            sent = authorizer.header(scopes)\n",
            ),
            (
                "image/registry/auth.py",
                "        if has_secret and not is_within_trust(self._origin, origin):\n",
                "        if False:\n",
            ),
        ),
    ),
    Guard(
        "a short name is docker's only where it says the same",
        ("SEC-47",),
        ("unit/test_reference.py::test_the_short_form_never_names_another_image",),
        (
            (
                "spec/reference.py",
                "        return path if _split_domain(path) == (self.domain, self.path) else self.name\n",
                "        return path\n",
            ),
        ),
    ),
    Guard(
        "files of a layout are resolved in it",
        ("SEC-44", "SEC-49"),
        ("contract/test_image_copy.py::test_a_hostile_layout_reads_nothing_outside",),
        (
            (
                "image/transports/tree.py",
                "            fd = open_in_root(self._root, name, os.O_RDONLY | os.O_NONBLOCK)\n",
                "            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._root)\n",
            ),
        ),
    ),
    Guard(
        "an archive takes no name unasked",
        ("SEC-49",),
        ("security/test_image_powers.py::test_an_archive_takes_no_name_from_another_image_unasked",),
        (("engine/images/archives.py", "                if not force:\n", "                if False:\n"),),
    ),
    Guard(
        "lists of tags are bounded",
        ("SEC-52",),
        ("security/test_lying_registries.py::test_tag_lists_are_bounded",),
        (
            (
                "image/registry/client.py",
                "        for _ in range(PAGES_MAX):\n            with self.ask",
                "        for _ in range(PAGES_MAX + 5):\n            with self.ask",
            ),
        ),
    ),
    Guard(
        "certificates are verified",
        ("SEC-52",),
        ("root/test_registry_tls.py::test_an_untrusted_certificate_is_refused",),
        (("image/registry/tls.py", "        if not self.verify:\n", "        if True:\n"),),
    ),
    Guard(
        "who fails lets go of a layer",
        ("SEC-66",),
        ("security/test_engine_attacks.py::test_sec_66_a_hostile_image_blocks_nobody",),
        (
            (
                "snapshot/unpack.py",
                "            except BaseException:\n                arrival.close()\n                raise\n",
                "            except BaseException:\n                raise\n",
            ),
        ),
    ),
)
