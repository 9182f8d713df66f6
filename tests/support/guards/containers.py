"""Guards of a container: what it sees, what it may, how it is made."""

from __future__ import annotations

from .model import Guard, by_doors, inside

RACES = "security/test_runtime_races.py::test_no_moment_is_a_good_one"
_CREATED = ("root", "rootless", "api", "nested")  # where a container is asked for, and not a build
ASKED = "security/test_asked_for.py::"

GUARDS = (
    Guard(
        "paths are resolved by the kernel, in the container's root",
        ("SEC-03", "SEC-08", "SEC-13", "SEC-14", "SEC-15", "SEC-18", "SEC-19"),
        (
            f"{RACES}[a mount target]",
            f"{RACES}[a copied directory]",
            f"{RACES}[devices]",
            f"{RACES}[the working directory]",
            "security/test_runtime_escapes.py::test_sec_08_and_15_targets_below_a_directory_that_becomes_a_link",
        ),
        (
            (
                "linux/path.py",
                "    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)\n",
                '    return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=dirfd)\n'
                "    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)\n",
            ),
        ),
    ),
    Guard(
        "the default filter of system calls",
        ("SEC-31", "SEC-27"),
        inside("sec_31_calls", "sec_31_families", "sec_31_terminals", "sec_27_identity"),
        (
            (
                "engine/compile/security.py",
                'seccomp="unconfined" if privileged else "default"',
                'seccomp="unconfined"',
            ),
        ),
    ),
    Guard(
        "no_new_privs",
        ("SEC-27",),
        inside("sec_27_identity"),
        (("engine/compile/security.py", "no_new_privileges=not privileged", "no_new_privileges=False"),),
    ),
    Guard(
        "what of the kernel is hidden, or can't be written",
        ("SEC-11", "SEC-13", "SEC-32"),
        (
            *inside("sec_11_masks", "sec_13_settings", doors=("root", "api", "build")),
            *inside("sec_32_side_channels", doors=("root", "api", "build")),
        ),
        (("engine/compile/security.py", "system_paths=not privileged", "system_paths=False"),),
    ),
    Guard(
        "masks are our own null device",
        ("SEC-11",),
        (f"{RACES}[the null device]",),
        (
            (
                "runtime/operations/masks.py",
                "        file_mask, directory_mask = init.source(self), -1\n",
                "        file_mask, directory_mask = mount.clone_tree("
                'os.open("dev/null", os.O_PATH, dir_fd=init.root)), -1\n',
            ),
        ),
    ),
    Guard(
        "docker's fourteen capabilities, none of them inheritable",
        ("SEC-28",),
        (*inside("sec_28_capabilities"), f"{ASKED}test_sec_28_nothing_is_inheritable_by_which_way_one_enters"),
        (
            (
                "engine/compile/security.py",
                "    return Capabilities(bounding=names, effective=names, permitted=names)",
                "    return Capabilities(bounding=names, effective=names, permitted=names, inheritable=names)",
            ),
        ),
    ),
    Guard(
        "no capability over the machine",
        ("SEC-28", "SEC-30", "SEC-31"),
        inside("sec_28_capabilities", "sec_30_cgroups", "sec_31_calls", doors=("root", "api", "build")),
        (("engine/compile/security.py", '"SETUID SYS_CHROOT"', '"SETUID SYS_CHROOT SYS_ADMIN SYSLOG"'),),
    ),
    Guard(
        "the container's cgroup is shown read-only",
        ("SEC-30",),
        (
            "security/test_runtime_escapes.py::test_sec_30_no_control_file_can_be_written",
            *inside("sec_30_cgroups", doors=("root", "api", "build")),
        ),
        (
            (
                "runtime/operations/cgroup_view.py",
                "_ATTRIBUTES | (mount.MOUNT_ATTR_RDONLY if self.readonly else 0)",
                "_ATTRIBUTES",
            ),
        ),
    ),
    Guard(
        "devices are denied but for a few",
        ("SEC-14",),
        inside("sec_14_devices", doors=("root", "api", "build")),
        (("engine/compile/devices.py", "    DeviceRule(allow=False),\n", "    DeviceRule(allow=True),\n"),),
    ),
    Guard(
        "who enters is not dumpable",
        ("SEC-02",),
        (
            "security/test_runtime_escapes.py::test_sec_02_a_process_that_enters_shows_nothing",
            "security/test_runtime_escapes.py::test_sec_02_nobody_attaches_to_a_process_that_enters",
        ),
        (
            (
                "runtime/birth.py",
                "        process.prctl(process.PR_SET_DUMPABLE, 0)\n",
                "        process.prctl(process.PR_SET_DUMPABLE, 1)\n",
            ),
            (
                "runtime/birth.py",
                "            process.prctl(process.PR_SET_DUMPABLE, 0)  # as in PidNamespace\n",
                "            pass\n",
            ),
            (
                "runtime/init.py",
                "        process.prctl(process.PR_SET_DUMPABLE, 0)\n",
                "        process.prctl(process.PR_SET_DUMPABLE, 1)\n",
            ),
            (
                "runtime/operations/identity.py",
                "        process.prctl(process.PR_SET_DUMPABLE, 0)\n",
                "        process.prctl(process.PR_SET_DUMPABLE, 1)\n",
            ),
        ),
    ),
    Guard(
        "memory that holds a program is sealed",
        ("SEC-01",),
        ("security/test_runtime_escapes.py::test_sealed_memory_can_not_be_written",),
        (
            (
                "linux/executable.py",
                "            os.fchmod(copy, 0o555)\n            seal(copy)\n",
                "            os.fchmod(copy, 0o755)\n",
            ),
        ),
    ),
    Guard(
        "the program that enters is a copy in memory",
        ("SEC-01",),
        (
            "security/test_runtime_escapes.py::test_sec_01_proc_self_exe_as_the_command",
            "security/test_runtime_escapes.py::test_sec_01_not_even_with_ptrace_is_a_host_binary_reached",
        ),
        (
            (
                "linux/executable.py",
                "    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)\n    try:\n        copy = _memfd(name)\n",
                "    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)\n    try:\n        return os.dup(source)\n"
                "        copy = _memfd(name)\n",
            ),
        ),
    ),
    Guard(
        "nothing is imported after the clone",
        ("SEC-05", "SEC-20"),
        ("security/test_runtime_escapes.py::test_sec_05_nothing_is_imported_after_the_clone",),
        (
            (
                "runtime/operations/process.py",
                "        os.umask(self.mask)\n",
                "        try:\n            import this  # noqa: F401\n        except ImportError:\n            pass\n"
                "        os.umask(self.mask)\n",
            ),
        ),
    ),
    Guard(
        "descriptors above 2 are closed",
        ("SEC-02", "SEC-04"),
        ("security/test_runtime_hostile_calls.py::test_sec_04_what_a_caller_leaves_open_stays_outside",),
        (
            (
                "runtime/init.py",
                "        process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)\n",
                "        for number in range(3, 64):\n"
                "            try:\n"
                "                os.set_inheritable(number, True)\n"
                "            except OSError:\n"
                "                pass\n",
            ),
        ),
    ),
    Guard(
        "a working directory is opened in the root, without magic links",
        ("SEC-03",),
        (
            *by_doors("test_sec_03_a_descriptor_is_no_working_directory"),
            "security/test_asked_for.py::test_sec_03_a_working_directory_that_becomes_a_descriptor",
            *(
                f"security/test_asked_for.py::test_sec_03_none_of_a_thousand_descriptors_is_a_working_directory[{half}]"
                for half in (0, 1)
            ),
        ),
        (
            (
                "runtime/operations/process.py",
                "            fd = path.open_in_root(init.root, self.path, os.O_PATH | os.O_DIRECTORY)\n",
                "            fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)\n",
            ),
            ("runtime/operations/process.py", "        if not _is_inside():\n", "        if False:\n"),
        ),
    ),
    Guard(
        "a user's number is bounded",
        ("SEC-27",),
        by_doors("test_sec_27_no_id_wraps_to_root"),
        (
            (
                "runtime/users.py",
                "    if number > ID_MAX:\n",
                "    number &= 2**32 - 1\n    if number > 2**32:\n",
            ),
        ),
    ),
    Guard(
        "the primary group is among the others",
        ("SEC-29",),
        by_doors("test_sec_29_the_primary_group_counts"),
        (
            (
                "runtime/users.py",
                "tuple(dict.fromkeys([gid, *own, *more]))",
                "tuple(dict.fromkeys([*own, *more]))",
            ),
        ),
    ),
    Guard(
        "the kernel's directories are ordinary ones",
        ("SEC-09", "SEC-14", "SEC-18"),
        by_doors("test_sec_09_and_14_a_link_in_place_of_a_kernel_directory", "proc-/tmp"),
        (
            (
                "runtime/operations/mounts.py",
                "    plain = destination in _PLAIN_PLACES or fstype in _PLAIN_TYPES\n",
                "    plain = False\n",
            ),
        ),
    ),
    Guard(
        "a terminal's devices are checked and bound by descriptor",
        ("SEC-12",),
        ("security/test_runtime_escapes.py::test_sec_12_the_console_is_not_bound_where_a_link_says",),
        (
            (
                "runtime/operations/terminal.py",
                "            target = _console_target(init)\n",
                '            target = os.open("dev/console", os.O_PATH | os.O_CLOEXEC, dir_fd=init.root)\n',
            ),
        ),
    ),
    Guard(
        "a passwd that is read is a regular file",
        ("SEC-17",),
        (
            "security/test_escapes.py::test_sec_17_a_passwd_that_never_ends",
            "unit/test_runtime_users.py::test_hostile_files_are_an_error_at_once",
        ),
        (
            (
                "linux/path.py",
                '        if not stat.S_ISREG(info.st_mode):\n            raise abi.error("read", errno.EINVAL',
                '        if stat.S_ISDIR(info.st_mode):\n            raise abi.error("read", errno.EINVAL',
            ),
        ),
    ),
    Guard(
        "destinations are cleaned, and lie in no procfs",
        ("SEC-13", "SEC-21"),
        ("root/test_runtime_mounts.py::test_nothing_is_mounted_inside_proc",),
        (
            (
                "runtime/planning/mounts.py",
                '    if destination.startswith("/proc/") and destination not in PROC_FILES_ALLOWED:\n',
                "    if not destination:\n",
            ),
            (
                "runtime/operations/mounts.py",
                '    if fstype != "proc" and destination not in PROC_FILES_ALLOWED and _is_procfs(fd):\n',
                "    if fd < 0:\n",
            ),
        ),
    ),
    Guard(
        "an id is no path",
        ("SEC-23",),
        (
            "security/test_runtime_hostile_calls.py::test_sec_23_an_id_that_is_a_path",
            "unit/test_runtime_cli.py::test_what_could_name_another_directory_is_no_id",
        ),
        (
            (
                "runtime/cli/store.py",
                '    if len(container_id) > ID_CHARACTERS_MAX or container_id in (".", "..") or '
                "not set(container_id) <= _ID_CHARACTERS:\n",
                "    if len(container_id) > ID_CHARACTERS_MAX:\n",
            ),
        ),
    ),
    Guard(
        "a cgroup's path stays below its place",
        ("SEC-23",),
        ("unit/test_cgroup_layout.py::test_a_path_that_could_lead_elsewhere_is_refused",),
        (
            ("linux/cgroup/directory.py", '        if name in ("", ".", ".."):\n', "        if name is None:\n"),
            (
                "linux/cgroup/directory.py",
                "    if not path.isascii() or not path.isprintable():\n",
                "    if path is None:\n",
            ),
        ),
    ),
    Guard(
        "only sysctls of the container's namespaces",
        ("SEC-24",),
        by_doors("test_sec_24_a_sysctl_is_the_containers", doors=("root", "api")),
        (
            (
                "runtime/planning/namespaces.py",
                '    elif canonical.startswith("net."):\n',
                '    elif canonical.startswith(("net.", "kernel.printk_ratelimit")):\n',
            ),
            (
                "engine/compile/namespaces.py",
                '        if owner is None or "/" in name or ".." in name:\n',
                '        if "/" in name or ".." in name:\n',
            ),
            ("frontends/cli/limits.py", "not equals or not own or", "not equals or"),
        ),
    ),
    Guard(
        "a name of /etc/hosts is one word",
        ("SEC-25",),
        by_doors("test_sec_25_a_line_stays_one_line", doors=("root", "rootless", "api", "nested")),
        (
            ("engine/networks/requests.py", "        _check_host(entry, subject)\n", "        continue\n"),
            (
                "engine/containers/files.py",
                '        if not line.replace("\\t", " ").isprintable():\n',
                "        if not line:\n",
            ),
        ),
    ),
    Guard(
        "what an image's link names is not made outside",
        ("SEC-16",),
        by_doors("test_sec_16_nothing_is_made_where_a_link_of_an_image_leads"),
        (
            (
                "linux/path.py",
                "        if target := _dangling(parent, name):\n"
                '            path = target if target.startswith("/") else f"{parent_path}/{target}"\n'
                '            return _make_file(root, path.strip("/"), mode, resolve, links_left - 1)\n'
                "        return os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, "
                "mode, dir_fd=parent)\n",
                "        return os.open(name, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, mode, dir_fd=parent)\n",
            ),
        ),
    ),
    Guard(
        "directories of state are closed to others",
        ("SEC-34", "SEC-35"),
        (
            "security/test_escapes.py::test_sec_34_state_is_closed_to_other_users",
            "security/test_engine_attacks.py::test_sec_35_no_other_user_reads_a_variable_or_a_file",
        ),
        (
            (
                "engine/engine.py",
                "        os.makedirs(path, 0o700, exist_ok=True)\n        os.chmod(path, 0o700)\n",
                "        os.makedirs(path, 0o755, exist_ok=True)\n        os.chmod(path, 0o755)\n",
            ),
        ),
        runs=False,
    ),
    Guard(
        "a pid that was recycled is told apart",
        ("SEC-36",),
        (
            "security/test_runtime_hostile_calls.py::test_sec_36_a_recycled_pid_is_nobody",
            "security/test_runtime_hostile_calls.py::test_sec_36_no_verb_signals_a_recycled_pid",
        ),
        (
            (
                "runtime/cli/store.py",
                "            pidfd = pidfd_of(entry.pid, entry.pid_start_time, entry.pid_inode)\n",
                "            pidfd = os.pidfd_open(entry.pid)\n",
            ),
        ),
    ),
    Guard(
        "labels of an image are left out",
        ("SEC-51",),
        ("security/test_image_powers.py::test_labels_that_only_we_give_are_left_out_and_told",),
        (
            (
                "engine/compile/config.py",
                "if not name.startswith(RESERVED_LABELS)}",
                "if name}",
            ),
        ),
    ),
    Guard(
        "a socket serves its user and root",
        ("SEC-33",),
        ("security/test_engine_attacks.py::test_sec_33_a_socket_that_others_reach_is_deaf_to_them",),
        (
            (
                "frontends/http/server.py",
                "            if self._uids is not None and peer_credentials(connection)[1] not in self._uids:\n",
                "            if False:\n",
            ),
        ),
    ),
    Guard(
        "shared memory holds no program",
        ("SEC-34",),
        inside("sec_34_shared_memory"),
        (
            (
                "engine/compile/mounts.py",
                '        options=("nosuid", "noexec", "nodev", "mode=1777", f"size={SHM_SIZE_BYTES}"),\n',
                '        options=("mode=1777", f"size={SHM_SIZE_BYTES}"),\n',
            ),
        ),
    ),
    Guard(
        "what is written to files below /etc stays on its line",
        ("SEC-25",),
        (
            "security/test_engine_attacks.py::test_sec_25_no_wish_becomes_a_second_line",
            "security/test_engine_attacks.py::test_sec_25_no_option_of_a_build_becomes_a_second_line",
        ),
        (
            ("engine/compile/config.py", "    _hostname(request.domainname, subject)\n", ""),
            (
                "engine/containers/files.py",
                '        if not line.replace("\\t", " ").isprintable():\n',
                "        if not line:\n",
            ),
        ),
    ),
    Guard(
        "the kernel's own file systems keep their labels",
        ("SEC-22",),
        ("unit/test_runtime_plan.py::test_new_file_systems_get_the_mount_label_but_not_the_kernels_own",),
        (
            (
                "runtime/planning/mounts.py",
                '    label = "" if mount.type in ("proc", "sysfs") else spec.linux.mount_label\n',
                "    label = spec.linux.mount_label\n",
            ),
        ),
        runs=False,
    ),
    Guard(
        "the machine's own directories are not relabelled",
        ("SEC-22",),
        (
            "security/test_asked_for.py::test_sec_22_nothing_of_the_machine_is_relabelled_or_given_away",
            *by_doors("test_sec_22_the_machines_directories_are_not_relabelled", doors=_CREATED),
        ),
        (
            (
                "engine/volumes/mountpoints.py",
                '        if "label" in modes and source in _LABELLED:\n',
                '        if "label" in modes and source == "":\n',
            ),
        ),
    ),
    Guard(
        "a copy's path is resolved in the container's root",
        ("SEC-06",),
        ("security/test_copy_races.py::test_no_copy_leaves_the_container",),
        (
            (
                "engine/rootfs/copy.py",
                "        return open_in_root(root, cleaned, os.O_PATH | "
                "(os.O_DIRECTORY if as_directory else os.O_NOFOLLOW))\n",
                "        flags = os.O_PATH | os.O_CLOEXEC | (os.O_DIRECTORY if as_directory else os.O_NOFOLLOW)\n"
                '        return os.open(cleaned.lstrip("/") or ".", flags, dir_fd=root)\n',
            ),
        ),
    ),
    Guard(
        "links inside an image are followed",
        ("SEC-07",),
        ("root/test_runtime_mounts.py::test_links_on_the_way_stay_inside",),
        (
            (
                "linux/path.py",
                "RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)\n",
                "RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | resolve)\n",
            ),
        ),
    ),
    Guard(
        "a label that nobody enforces is none",
        ("SEC-10",),
        ("unit/test_runtime_plan.py::test_a_label_is_set_where_somebody_enforces_it",),
        (("runtime/planning/process.py", "    if name not in host.lsms:\n", "    if name is None:\n"),),
    ),
    Guard(
        "what is too long is refused, not cut",
        ("SEC-26",),
        (
            "security/test_runtime_hostile_calls.py::test_sec_26_what_is_too_large_is_an_error[hostname]",
            "security/test_runtime_hostile_calls.py::test_sec_26_what_is_too_large_is_an_error[domainname]",
        ),
        (
            (
                "runtime/planning/namespaces.py",
                '            if len(text.encode(errors="surrogateescape")) > _HOSTNAME_BYTES_MAX:\n',
                "            if text is None:\n",
            ),
            (
                "runtime/planning/namespaces.py",
                "SetHostname(hostname=spec.hostname, domainname=spec.domainname)",
                "SetHostname(hostname=spec.hostname[:64], domainname=spec.domainname[:64])",
            ),
        ),
    ),
    Guard(
        "a file of users is bounded",
        ("SEC-17",),
        (
            f"{ASKED}test_sec_17_files_of_users_that_never_end_cost_the_engine_nothing[million-passwd]",
            f"{ASKED}test_sec_17_files_of_users_that_never_end_cost_the_engine_nothing[million-group]",
        ),
        (("runtime/users.py", "FILE_BYTES_MAX = 10 * 1024 * 1024\n", "FILE_BYTES_MAX = 1 << 30\n"),),
    ),
    Guard(
        "a container's name is no path",
        ("SEC-23",),
        (f"{ASKED}test_sec_23_no_name_is_a_path", *by_doors("test_sec_23_no_name_is_a_path", doors=_CREATED)),
        (
            (
                "engine/containers/names.py",
                "    if not 0 < len(name) <= NAME_LENGTH_MAX or name[0] not in _FIRST or not _REST.issuperset(name):\n",
                "    if not 0 < len(name) <= NAME_LENGTH_MAX:\n",
            ),
        ),
    ),
    Guard(
        "a parent of a cgroup is looked at when a container is made",
        ("SEC-23",),
        (f"{ASKED}test_sec_23_no_parent_of_a_cgroup_leaves_its_place",),
        (
            (
                "engine/compile/namespaces.py",
                '        cause = f"invalid cgroup parent {path[:100]!r}: {wrong.strerror}"\n',
                '        return\n        cause = f"invalid cgroup parent {path[:100]!r}: {wrong.strerror}"\n',
            ),
        ),
    ),
    Guard(
        "a listener has a path, and no abstract name",
        ("SEC-33",),
        (
            f"{ASKED}test_sec_33_a_container_on_the_machines_network_connects_to_no_socket_of_ours",
            "security/test_escapes.py::test_sec_33_no_abstract_socket_of_ours",
        ),
        (
            (
                "frontends/native/server.py",
                "        listener.listen(BACKLOG)\n",
                "        listener.listen(BACKLOG)\n        other = socket.socket(socket.AF_UNIX)\n"
                '        other.bind(f"\\0orlop{name}")\n        other.listen(8)\n'
                '        _listen.__dict__.setdefault("kept", []).append(other)\n',
            ),
        ),
    ),
    Guard(
        "a file of state is its owner's alone",
        ("SEC-35",),
        (f"{ASKED}test_sec_35_files_of_the_store_are_their_owners_alone",),
        (
            (
                "engine/containers/record.py",
                'os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)\n    with open(fd, "wb", buffering=0) as file:\n',
                "os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)\n    os.fchmod(fd, 0o644)\n"
                '    with open(fd, "wb", buffering=0) as file:\n',
            ),
        ),
    ),
    Guard(
        "a checkpoint is written through no link",
        ("SEC-48",),
        ("conformance/test_runtime_checkpoint.py::test_a_link_in_a_checkpoint_leads_nowhere",),
        (("runtime/criu/dump.py", "os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC\n", "os.O_TRUNC | os.O_CLOEXEC\n"),),
    ),
    Guard(
        "a part of a volume is opened below it",
        ("SEC-77",),
        ("security/test_volumes.py::test_a_part_of_a_volume_that_is_swapped_for_a_link_shows_nothing_else",),
        (
            (
                "runtime/operations/mounts.py",
                "        return path.openat2(directory, name, os.O_PATH | flags, 0, resolve)\n",
                "        return os.open(name, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=directory)\n",
            ),
        ),
    ),
)
