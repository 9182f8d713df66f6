"""Guards of builds, of the API, of networks."""

from __future__ import annotations

from .model import Guard, inside

BUILDS = "security/test_hostile_builds.py::"

GUARDS = (
    Guard(
        "a cache's id is a name and a digest",
        ("SEC-60",),
        (f"{BUILDS}test_the_id_of_a_cache_leads_nowhere",),
        (
            (
                "build/solver/cachemounts.py",
                "    return f\"build-cache-{shown or 'x'}-{hashlib.sha256(cache_id.encode()).hexdigest()[:8]}\"\n",
                "    return cache_id\n",
            ),
        ),
    ),
    Guard(
        "trees of a build are resolved in themselves",
        ("SEC-60", "SEC-63", "SEC-64"),
        (
            f"{BUILDS}test_a_copy_from_a_stage_stays_in_the_stage",
            f"{BUILDS}test_a_link_in_the_context_leads_nowhere",
        ),
        (
            (
                "linux/path.py",
                '    return openat2(root, path or ".", flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS '
                "| resolve)\n",
                '    return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=root)\n',
            ),
        ),
    ),
    Guard(
        "privileges need --allow",
        ("SEC-62",),
        (
            f"{BUILDS}test_an_image_s_triggers_are_bounded_by_the_dockerfile",
            "root/test_build.py::test_what_the_user_did_not_allow_is_refused",
        ),
        (
            (
                "build/solver/runs.py",
                "        if wanted and entitlement not in allowed:\n",
                "        if False:\n",
            ),
        ),
    ),
    Guard(
        "a step has only what is declared",
        ("SEC-04", "SEC-65"),
        (f"{BUILDS}test_a_command_sees_only_declared_variables", *inside("sec_04_environment", doors=("build",))),
        (
            (
                "engine/steps/run.py",
                "            env=command.env,\n",
                '            env=(*command.env, *(f"{name}={value}" for name, value in os.environ.items())),\n',
            ),
        ),
    ),
    Guard(
        "no build reaches the machine's own services",
        ("SEC-67",),
        (f"{BUILDS}test_a_url_leads_to_no_file_socket_or_metadata",),
        (
            (
                "build/http.py",
                "    if address.is_link_local or address.is_multicast or (local and redirected):\n",
                "    if False:\n",
            ),
        ),
    ),
    Guard(
        "a checksum is compared",
        ("SEC-67",),
        (f"{BUILDS}test_a_checksum_is_enforced",),
        (
            (
                "build/http.py",
                '    if source.checksum and source.checksum != f"sha256:{digest}":\n',
                "    if False:\n",
            ),
        ),
    ),
    Guard(
        "a scoped socket asks for a right",
        ("SEC-70",),
        ("contract/test_scoped_sockets.py::test_no_form_of_a_request_opens_more",),
        (("frontends/scoped/door.py", "        gate.check(needed)\n", "        pass\n"),),
    ),
    Guard(
        "a scoped socket finds what has its labels",
        ("SEC-70",),
        ("contract/test_scoped_sockets.py::test_what_is_hidden_answers_as_what_is_not_there",),
        (("frontends/scoped/door.py", "        self._find(pattern)\n", "        pass\n"),),
    ),
    Guard(
        "pages of browsers are refused",
        ("SEC-72",),
        (
            "contract/test_docker_endpoints.py::test_no_page_of_a_browser_is_answered",
            "contract/test_registry_server.py::test_no_page_of_a_browser_is_served",
        ),
        (
            (
                "frontends/http/pages.py",
                '    return ("Origin" in headers and not is_own) or headers.get("Sec-Fetch-Site", "none") != "none"\n',
                "    return False\n",
            ),
        ),
    ),
    Guard(
        "one connection more ends the one that says nothing",
        ("SEC-73",),
        ("contract/test_docker_endpoints.py::test_half_requests_keep_nobody_out",),
        (("frontends/http/server.py", "                self._evict()\n", "                pass\n"),),
    ),
    Guard(
        "a body is bounded",
        ("SEC-73",),
        ("contract/test_docker_endpoints.py::test_a_body_without_end_is_not_read",),
        (
            (
                "frontends/http/exchange.py",
                "            if size > bytes_max:\n",
                "            if False:\n",
            ),
            (
                "frontends/http/exchange.py",
                "        if not self._chunked and self._left > bytes_max:\n",
                "        if False:\n",
            ),
        ),
    ),
    Guard(
        "a name stands once in an object of JSON",
        ("SEC-45", "SEC-79"),
        (
            "unit/test_jsonio.py::test_broken_documents_are_refused_by_name",
            "contract/test_docker_endpoints.py::test_hostile_json_is_told_at_once",
        ),
        (
            (
                "spec/jsonio.py",
                "    if len(out) != len(pairs):\n",
                "    if False:\n",
            ),
        ),
    ),
    Guard(
        "no router's advertisement is believed, no address made of itself",
        ("SEC-93",),
        ("root/test_networks.py::test_ipv6_is_there_when_asked_for_and_only_then",),
        (
            (
                "network/links.py",
                '    write_sysctl("ipv6/conf/default/disable_ipv6", "1")\n'
                '    write_sysctl("ipv6/conf/default/accept_ra", "0")\n',
                '    write_sysctl("ipv6/conf/default/disable_ipv6", "0")\n'
                '    write_sysctl("ipv6/conf/default/accept_ra", "1")\n',
            ),
        ),
    ),
    Guard(
        "a bridge's port hands nothing to the machine past its bridge",
        ("SEC-93",),
        ("root/test_network_attacks.py::test_no_container_is_a_router_for_the_machine",),
        (
            (
                "network/links.py",
                '    write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")\n',
                "",
            ),
        ),
    ),
    Guard(
        "nothing that comes by a cable is for the machine's loopback",
        ("SEC-90",),
        ("root/test_network_attacks.py::test_loopback_is_no_neighbours_whatever_else_is_allowed",),
        (("network/firewall.py", 'nft.compare(_R, b"\\x7f", nft.NEQ)]', 'nft.compare(_R, b"\\0", nft.NEQ)]'),),
    ),
    Guard(
        "what is not published is dropped",
        ("SEC-90",),
        ("root/test_networks.py::test_nobody_from_outside_reaches_what_is_not_published",),
        (
            (
                "network/firewall.py",
                '        [outgoing, nft.lookup("bridges", _R), nft.verdict(DROP)],\n',
                '        [outgoing, nft.lookup("bridges", _R), nft.verdict(ACCEPT)],\n',
            ),
        ),
    ),
    Guard(
        "an internal network asks no name outside",
        ("SEC-92",),
        ("root/test_names.py::test_an_internal_network_asks_nobody_outside",),
        (
            (
                "engine/networks/names.py",
                "        external = external or not network.internal\n",
                "        external = True\n",
            ),
        ),
    ),
    Guard(
        "what others call themselves is escaped on a terminal",
        ("SEC-78",),
        ("root/test_terminal_story.py::test_what_a_container_calls_itself_can_not_steer_the_terminal",),
        (("frontends/cli/command.py", "    if text.isprintable():\n", "    if text:\n"),),
    ),
    Guard(
        "a step's key has its variables and its user",
        ("SEC-50",),
        (f"{BUILDS}test_all_that_a_step_sees_is_in_its_key",),
        (
            ("build/solver/keys.py", '        key.add_hidden(f"variable {name}", value, salt)\n', "        pass\n"),
            ("build/solver/keys.py", '    key.add("user", run.user)\n', ""),
        ),
    ),
    Guard(
        "who comes by TCP shows a certificate",
        ("SEC-71",),
        ("contract/test_serve.py::test_docker_over_tls",),
        (("frontends/http/tls.py", "ssl.CERT_REQUIRED", "ssl.CERT_NONE"),),
    ),
    Guard(
        "stubs of mounts are removed by descriptor",
        ("SEC-61",),
        (f"{BUILDS}test_what_stands_where_a_mount_was_is_not_removed_on_the_host",),
        (
            (
                "engine/steps/workspace.py",
                "made = found.made\n",
                "made = found.made if not [os.unlink(upper + stub) for stub in targets if "
                "os.path.isfile(upper + stub)] else ()\n",
            ),
        ),
    ),
    Guard(
        "a request has an environment of its own",
        ("SEC-75",),
        ("contract/test_sdk.py::test_many_at_once_in_one_event_loop",),
        (
            (
                "engine/compile/config.py",
                '    overridden = {entry.partition("=")[0] for entry in asked}\n    return asked',
                '    overridden = {entry.partition("=")[0] for entry in asked}\n'
                '    asked = _environment.__dict__.setdefault("kept", asked) if asked else asked\n    return asked',
            ),
        ),
    ),
    Guard(
        "what is named elsewhere is refused, not passed over",
        ("SEC-76",),
        ("security/test_engine_attacks.py::test_sec_76_nothing_remote_is_a_part_of_a_project",),
        (
            (
                "frontends/compose/fields.py",
                '            raise wrong(place, path, "compose files are not fetched from elsewhere", REMOTE_HINT)\n',
                '            place = self._absolute("fetched.yaml")\n            with open(place, "w") as file:\n'
                '                file.write("services: {b: {image: host}}")\n            return place\n',
            ),
        ),
    ),
    Guard(
        "what a build says is escaped on a terminal",
        ("SEC-78",),
        ("root/test_terminal_story.py::test_what_an_image_and_a_build_say_can_not_steer_the_terminal",),
        (
            (
                "frontends/cli/build/build.py",
                "    shown.stream.write(visible(told) if shown.stream.isatty() else told)\n",
                "    shown.stream.write(told)\n",
            ),
        ),
    ),
    Guard(
        "secrets of containers lie in memory alone",
        ("SEC-74",),
        ("contract/test_secrets.py::test_the_value_is_nowhere_else",),
        (
            (
                "engine/secrets.py",
                '    place = f"{_memory(engine)}/{record.id}"\n',
                '    place = f"{engine.records.path(record.id)}/kept"\n',
            ),
        ),
    ),
    Guard(
        "only what comes from the machine's loopback is given another source",
        ("SEC-91",),
        ("root/test_networks.py::test_a_published_port_is_reached_from_everywhere_and_sees_who_comes",),
        (
            (
                "network/firewall.py",
                "        rules.append([*from_loopback, *to_bridge, nft.masquerade()])\n",
                "        rules.append([*to_bridge, nft.masquerade()])\n",
            ),
        ),
    ),
    Guard(
        "a table of rules has an owner",
        ("SEC-94",),
        ("root/test_networks.py::test_a_flush_opens_nothing_while_no_engine_is_there",),
        (
            (
                "network/firewall.py",
                "        for flags in (nft.TABLE_OWNER | nft.TABLE_PERSIST, 0):\n            batch = Batch()\n"
                "            for family in FAMILIES:\n",
                "        for flags in (0,):\n            batch = Batch()\n            for family in FAMILIES:\n",
            ),
        ),
    ),
    Guard(
        "an engine that is killed leaves a sweeper behind",
        ("SEC-94",),
        ("root/test_networks.py::test_a_flush_opens_nothing_after_the_engine_was_killed",),
        (("engine/networks/attach.py", "            networks.make_will()\n", ""),),
    ),
    Guard(
        "an engine that is killed together with its spawner leaves a sweeper behind",
        ("SEC-94",),
        ("root/test_networks.py::test_a_flush_opens_nothing_after_the_engine_was_killed",),
        (("supervise/spawner.py", "                _fork_heir(engine, fd, inherited)\n", ""),),
    ),
)
