"""Sizes, processors, durations, times, tables and what a terminal is shown."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orlop.frontends.cli import command, commands, flags, help, table, template, units, values
from orlop.spec.errors import Invalid


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("32", 32), ("32b", 32), ("32B", 32), ("32k", 32768), ("32K", 32768), ("32kb", 32768),
        ("32Kib", 32768), ("32KIB", 32768), ("32Mb", 32 << 20), ("32g", 32 << 30), ("32t", 32 << 40), ("2p", 2 << 50),
        ("32.5kB", 33280), ("0.3 K", 307), (".3kB", 307), ("32 mb", 32 << 20), ("0.", 0), ("1e3", 1000), ("1.k", 1024),
    ],
)  # fmt: skip
def test_sizes(text, number):
    assert values.parse_bytes(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "hello", "-32", "-1k", ".", "0x10", "inf", "nan1", "32bm", "32 kbb", "32kk", "32mbb", "1.2.3", "1_0",
     "++1", "8e30", "9" * 400, "\u0663k", "1 2 k", "32\xa0k", "k", "e5"],
)  # fmt: skip
def test_what_is_no_size(text):
    with pytest.raises(flags.BadValue) as caught:
        values.parse_bytes(text)
    assert caught.value.hint


@given(st.text(max_size=30))
@example("ctrl-\xdf")  # whose upper case is two letters
@example("\xdf")
def test_no_text_breaks_a_parser(text):
    for parse in (
        values.parse_bytes, values.parse_cpus, values.parse_duration, values.parse_mount, values.parse_tmpfs,
        values.parse_detach_keys, values.parse_label, values.parse_filter, flags.parse_int, flags.parse_bool,
    ):  # fmt: skip
        try:
            parse(text)
        except flags.BadValue:
            pass
    flags.quote(text)
    units.epoch_ns(text)
    assert command.visible(text).replace("\n", "").replace("\t", "").isprintable()


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("1", 10**9),
        (".5", 5 * 10**8),
        ("1.", 10**9),
        ("+2", 2 * 10**9),
        ("1e-9", 1),
        ("2.5e1", 25 * 10**9),
        ("6/4", 1_500_000_000),
    ],
)
def test_processors(text, nanos):
    assert values.parse_cpus(text) == nanos


@pytest.mark.parametrize(
    "text", ["", ".", "-1", "1/0", "1/-2", "a", "1e", "1e1e1", "--1", "1 ", "1_0", "1e-10", "9" * 70, "1e99", "0x1"]
)
def test_what_is_no_number_of_processors(text):
    with pytest.raises(flags.BadValue):
        values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1s", 1),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("-2m", -120),
        ("100ms", 0.1),
        ("+5us", 5e-6),
        ("1h0.5s", 3600.5),
        (".5m", 30),
    ],
)
def test_durations(text, seconds):
    assert values.parse_duration(text) == round(seconds * 1e9)


@pytest.mark.parametrize("text", ["", "-", "1", "s", "1x", "1s2", "1..5s", ".s", "9999999h" * 9, "1 s", "++1s", "1d"])
def test_what_is_no_duration(text):
    with pytest.raises(flags.BadValue):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
        ("2026-11-22T07:00:00.123456789Z", 1795330800_123456789),
        ("2026-11-22T07Z", 1795330800_000000000),
    ],
)
def test_times(text, expected):
    assert units.epoch_ns(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "2026", "2026-13-01", "2026-01-01T", "2026-01-01T25:00:00Z", "1.5.5", "2026-01-01.5", "1.T"]
)
def test_what_is_no_time(text):
    assert units.epoch_ns(text) is None


def test_a_time_without_a_zone_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert units.epoch_ns("1970-01-01T02:00:05") == 5_000_000_000
        assert units.epoch_ns("1970-01-01") == -7200_000_000_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"),
        (60, "About a minute"), (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"),
        (3600, "About an hour"), (5399, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert units.duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (7_274_000, "7.27MB"), (24_300_000, "24.3MB"), (5 * 10**21, "5e+03EB")],
)
def test_sizes_in_words(number, words):
    assert units.size(number, 3) == words


def test_a_table_is_as_wide_as_its_widest_cells():
    assert table.render([("A", "B", "C"), ("a" * 12, "b", "")]) == f"A{' ' * 14}B{' ' * 9}C\n{'a' * 12}   b{' ' * 9}\n"
    assert table.render([]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e4\u4f60", "plain \u00e4\u4f60"),
        ("a\nb\tc", "a\nb\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b0m", "\\u009b0m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\r", "\\x0d"),
        ("\ud800\udcff", "\\ud800\\xff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_nothing_that_steers_a_terminal_is_shown(text, shown):
    assert command.visible(text) == shown


def test_help_is_wrapped_between_its_columns():
    text = help.wrap("one two three four five six seven eight nine ten", 10, 45)
    assert text == "one two three four five six\n          seven eight nine ten"
    assert help.wrap("word " * 20, 70, 80).count("\n") == 0, "no room: one long line"
    assert help.wrap("a\nb", 4, 80) == "a\n    b"


EVIL = [
    "{{" + "(" * 100_000,
    "{{if .a}}" * 5000,
    "{{range .}}" * 3000 + "x",
    "{{.a" + ".a" * 50_000 + "}}",
    '{{printf "%999999999d" 1}}',
    '{{printf "%.999999999f" 1.5}}',
    '{{pad "x" 999999999 1}}',
    "{{range 99999999999}}{{end}}",
    "{{break}}",
    "{{1e999999}}",
    "{{index . -1}}",
    '{{slice "abc" 2 1}}',
    '{{slice "abc" "a"}}',
    "{{printf}}",
    "{{len}}",
    "{{json}}",
    '{{split "a"}}',
    "{{.a b}}",
    '{{"\\ud800"}}',
    "{{'ab'}}",
    "{{\x00}}",
    "{{.}",
    "}}{{-",
    "x" * 70_000,
]


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_an_evil_template_is_refused_and_costs_nothing(text):
    started = time.process_time()
    try:
        rendered = template.Template(text).render({"a": [1], "b": {"c": None}})
    except Invalid as wrong:
        assert wrong.hint and len(str(wrong)) < 1000
    else:
        assert len(rendered) < 10_000
    assert time.process_time() - started < 20, "a bound against a hang, no measurement"


@given(st.text(alphabet="{}.$|()\"'`- \\:=,anifrgelsdwth01", max_size=40))
def test_no_template_breaks_the_engine(text):
    try:
        template.Template("{{" + text + "}}").render({"a": {"b": [1, "x", None]}})
    except Invalid:
        pass


@pytest.mark.parametrize(
    ("text", "parts"),
    [("", ()), ("a", ("a",)), ("a,b", ("a", "b")), ('"a,b",c', ("a,b", "c")), (",", ("", "")), ('""', ("",))],
)
def test_several_values_in_one_are_read_as_csv(text, parts):
    assert flags.parse_texts(text) == parts


@pytest.mark.parametrize("text", ['"', '"a', '"a"b', 'a"b",\n"'])
def test_broken_csv_is_refused(text):
    with pytest.raises(flags.BadValue):
        flags.parse_texts(text)


ROWS = {
    f"{group} {word}".strip(): row
    for group, table in (
        ("", commands.COMMON | commands.COMMANDS),
        *((name, rows) for name, (_, rows) in commands.GROUPS.items()),
    )
    for word, row in table.items()
}
VALUES = st.sampled_from("1 -1 0x1 a a=b a:b /a:/b 1m 1.5 1,2 true host always type=bind,src=/a,dst=/b {{.ID}}".split())


@settings(max_examples=300)
@given(data=st.data())
def test_no_words_break_a_command_line(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ROWS)))
    command = commands.load(ROWS[name])
    known = [f"--{flag.name}" for flag in command.flags] + [f"-{flag.short}" for flag in command.flags if flag.short]
    value = VALUES | st.text(max_size=8)
    joined = st.builds("{}{}{}".format, st.sampled_from(known), st.sampled_from(["", "="]), value)
    words = data.draw(st.lists(st.sampled_from([*known, "-", "--", "-it"]) | joined | value, max_size=6))
    try:
        options, arguments = command.parse(words)
        command.check_arguments(name, arguments, options)
    except flags.UsageError as refused:
        assert str(refused) and refused.code in (1, 125)
    except Invalid as refused:
        assert refused.cause
