"""The language catalogue: its files, their checks, and what comes out of it (RFC 6856 s3)."""

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from babel import Locale, localedata
from hypothesis import given
from hypothesis import strategies as st

import pop3hub
from pop3hub import errors
from pop3hub.errors import ConfigurationError, PopError
from pop3hub.i18n.catalogue import Catalogue
from pop3hub.i18n.files import check_file, skeleton
from pop3hub.i18n.language import TEXT_LIMIT
from pop3hub.i18n.plurals import compile_rule

ROOT = Path(pop3hub.__file__).parent.parent
SHIPPED = sorted((ROOT / "languages").glob("*.toml"))
CATALOGUE = Catalogue.load()
ENGLISH = CATALOGUE.reference
IDS = sorted(ENGLISH.entries)

# Around every border that a CLDR rule has, and then some.
NUMBERS = sorted({*range(1130), *(k * 10**e for e in range(3, 8) for k in (1, 2, 6, 10, 21))})


def write(directory, body="", *, tag="nl", name="Nederlands", plural='one = "n = 1"'):
    """Write a language file that is right but for what the test puts into it."""
    path = directory / f"{tag}.toml"
    path.write_text(f'tag = "{tag}"\nname = "{name}"\n[plural]\n{plural}\n[text]\n{body}\n')
    return path


def found_in(path):
    return check_file(path, ENGLISH).errors


# Plural rules


def cldr_rules(locale):
    """Return Babel's rules in the spelling of CLDR's chart."""
    spelling = {" not in ": " != ", " in ": " = ", " mod ": " % "}
    return {
        category: re.sub(" not in | in | mod ", lambda match: spelling[match.group()], rule)
        for category, rule in locale.plural_form.rules.items()
    }


def category_of(rules, number):
    compiled = ((category, compile_rule(rule)) for category, rule in rules.items())
    return next((category for category, rule in compiled if rule and rule(number)), "other")


@pytest.mark.slow
def test_every_plural_rule_of_cldr_gives_what_babel_gives():
    seen = set()
    for identifier in localedata.locale_identifiers():
        locale = Locale.parse(identifier)
        rules = cldr_rules(locale)
        if (key := str(sorted(rules.items()))) in seen:
            continue
        seen.add(key)
        compiled = {category: compile_rule(rule) for category, rule in rules.items()}
        for number in NUMBERS:
            fitting = [each for each, rule in compiled.items() if rule and rule(number)]
            assert [locale.plural_form(number)] == (fitting or ["other"]), (identifier, number)
    assert len(seen) > 30


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_plural_rules_of_a_shipped_language_are_cldrs(path):
    rules = tomllib.loads(path.read_text()).get("plural", {})
    babel = Locale.parse(path.stem, sep="-").plural_form

    for number in (*range(130), 1000, 1001, 1_000_000, 1_000_001, 2_000_000):
        assert babel(number) == category_of(rules, number), number


@pytest.mark.parametrize(
    ("rule", "fitting"),
    [
        ("n = 1", [1]),
        ("n != 1", [0, 2, 3, 4, 5, 6]),
        ("n = 0,2..3", [0, 2, 3]),
        ("n % 4 = 1", [1, 5]),
        ("n % 4 != 1..2", [0, 3, 4]),
        ("n = 1 or n = 3 and n % 2 = 0", [1]),
        ("i = 1 and v = 0", [1]),
        ("v = 0", [0, 1, 2, 3, 4, 5, 6]),
        ("e != 0..5 or n = 6", [6]),
    ],
)
def test_a_rule_is_read_as_cldr_means_it(rule, fitting):
    compiled = compile_rule(rule)

    assert fitting == [number for number in range(7) if compiled(number)]


def test_a_rule_for_decimals_alone_is_no_rule():
    assert compile_rule("v != 0") is None


@pytest.mark.parametrize(
    "rule",
    ["", "n", "n =", "n = one", "n == 1", "n = 1 and", "x = 1", "n % 0 = 1", "n = 1; n = 2",
     "__import__('os')", "n = 1.5", "n = 1..", "n is 1"],
)  # fmt: skip
def test_a_rule_that_cant_be_read_is_refused(rule):
    with pytest.raises(ValueError, match="can't read"):
        compile_rule(rule)


# Checks: each has a file that fails it

BAD_TEXTS = {
    "unknown id": ('tea-time = "thee"', "tea-time: unknown text id"),
    "number for a text": ("nothing-done = 1", "nothing-done: wanted is a text"),
    "list for a form": ("octets-follow = { one = [], other = '' }", "wanted is a text"),
    "empty": ('nothing-done = ""', "nothing-done: is empty"),
    "blank": ('nothing-done = " "', "nothing-done: is empty"),
    "space first": ('nothing-done = " niets"', "begins or ends with a space"),
    "line break": (r'nothing-done = "niets\r\n+OK"', "control character"),
    "line separator": (r'nothing-done = "niets\u2028meer"', "control character"),
    "C1 control": (r'nothing-done = "niets\u0085meer"', "control character"),
    "response code": ('nothing-done = "[AUTH] niets"', 'begins with "["'),
    "stamp": ('signing-off = "{name} <stopt>"', "APOP"),
    "placeholder lost": ('message-deleted = "weg"', "wanted: {number}, as in en.toml; found: none"),
    "placeholder misspelt": ('message-deleted = "{nummer} weg"', "found: {nummer}"),
    "placeholder too many": ('nothing-done = "{name}"', "wanted: no placeholder"),
    "attribute": ('message-deleted = "{number.real}"', "only bare names"),
    "index": ('message-deleted = "{number[0]}"', "only bare names"),
    "format": ('message-deleted = "{number:^999999}"', "only bare names"),
    "conversion": ('message-deleted = "{number!r}"', "only bare names"),
    "position": ('message-deleted = "{}"', "only bare names"),
    "loose brace": ('message-deleted = "{number} }"', "only bare names"),
    "too long": (f'nothing-done = "{"é" * 250}"', "can become 500 octets long"),
    "too long when filled": (f'welcome = "{"x" * 460} {{user}}"', "octets long"),
    "plural where none is": ('nothing-done = { one = "a", other = "b" }', "no plural forms"),
    "form missing": ('octets-follow = { other = "{octets}" }', "plural form missing: one"),
    "form without rule": (
        'octets-follow = { one = "{octets}", few = "{octets}", other = "{octets}" }',
        "no rule in [plural] ever gives this form: few",
    ),
    "bad form": (
        'octets-follow = { one = "een", other = "{octets}" }',
        "octets-follow: one: wanted: {octets}",
    ),
    "other number": (
        'octets-follow = { by = "size", one = "{octets}", other = "{octets}" }',
        'by: en.toml has by = "octets"',
    ),
}


@pytest.mark.parametrize(("body", "error"), BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_a_bad_text_is_found(tmp_path, body, error):
    found = found_in(write(tmp_path, body))

    assert 1 == len(found), found
    assert error in found[0]


BAD_HEADS = {
    "not TOML": (b"tag = nl", "is not TOML"),
    "not UTF-8": (b'tag = "nl"\nname = "\xff"', "UTF-8"),
    "id twice": (b'tag="nl"\nname="N"\n[text]\nwelcome="{user}"\nwelcome="{user}"', "is not TOML"),
    "no tag": (b'name = "Nederlands"', "tag: wanted"),
    "tag in the wrong case": (b'tag = "NL"\nname = "Nederlands"', "tag: wanted"),
    "tag of another file": (b'tag = "be"\nname = "Nederlands"', "must be named be.toml"),
    "no name": (b'tag = "nl"', "name: wanted"),
    "name of two lines": (b'tag = "nl"\nname = "a\\nb"', "name: wanted"),
    "unknown key": (b'tag = "nl"\nname = "N"\ntexts = 1', "texts: unknown key"),
    "text no table": (b'tag = "nl"\nname = "N"\ntext = 1', "text: wanted is a table"),
    "plural no table": (b'tag = "nl"\nname = "N"\nplural = 1', "plural: wanted is a table"),
    "unknown category": (b'tag = "nl"\nname = "N"\n[plural]\nsome = "n = 1"', "plural.some: not"),
    "rule for other": (b'tag = "nl"\nname = "N"\n[plural]\nother = "n = 1"', "needs no rule"),
    "bad rule": (b'tag = "nl"\nname = "N"\n[plural]\none = "n is 1"', "plural.one: can't read"),
}


@pytest.mark.parametrize(("octets", "error"), BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_a_bad_head_is_found(tmp_path, octets, error):
    path = tmp_path / "nl.toml"
    path.write_bytes(octets)

    found = found_in(path)

    assert 1 == len(found), found
    assert error in found[0]


def test_a_file_that_isnt_there_is_an_error_and_no_traceback(tmp_path):
    assert ("can't be read: No such file or directory",) == found_in(tmp_path / "nl.toml")


def test_the_reference_must_say_which_of_several_numbers_picks_the_form(tmp_path):
    body = 'sum = { one = "{a} of {b}", other = "{a} of {b}" }'
    path = write(tmp_path, body, tag="en", name="English")

    found = check_file(path, None).errors

    assert ("sum: by: wanted is the field whose number picks the form",) == found


def test_a_check_finds_every_error_at_once(tmp_path):
    found = found_in(write(tmp_path, 'tea = "thee"\nnothing-done = ""\nwelcome = "dag"'))

    assert ["tea", "nothing-done", "welcome"] == [error.partition(":")[0] for error in found]


def test_what_a_file_lacks_is_counted_and_stays_english(tmp_path):
    report = check_file(write(tmp_path, 'nothing-done = "niets gedaan"'), ENGLISH)

    assert () == report.errors
    assert len(IDS) - 1 == len(report.missing)
    assert b"niets gedaan" == report.language.text("nothing-done", ascii=True)
    assert b"log in first" == report.language.text("log-in-first", ascii=False)
    assert b"1 octet" == report.language.text("octets-follow", ascii=False, octets=1)


def test_a_category_for_decimals_alone_has_no_form(tmp_path):
    body = 'octets-follow = { one = "{octets} bajt", other = "{octets} bajtu" }'

    path = write(tmp_path, body, plural='one = "i = 1 and v = 0"\nmany = "v != 0"')

    assert () == found_in(path)


def test_one_text_may_serve_all_numbers(tmp_path):
    path = write(tmp_path, 'octets-follow = "bytes: {octets}"')

    language = check_file(path, ENGLISH).language

    assert b"bytes: 1" == language.text("octets-follow", ascii=False, octets=1)


# What is shipped


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_is_whole_and_without_error(path):
    report = check_file(path, ENGLISH)

    assert ((), ()) == (report.errors, report.missing)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_translation_asks_for_a_native_reader(path):
    first = path.read_text().splitlines()[0]

    assert ("native reader" in first) == (path.stem != "en")


def test_at_least_fourteen_languages_are_shipped():
    assert len(CATALOGUE.languages) >= 14


def test_the_seeds_words_are_kept():
    dutch = CATALOGUE.find("nl")

    greeting = dutch.text("greeting", ascii=True, name="Luke-POP3", client="IPv4 192.168.99.30")
    assert b"Luke-POP3 tot uw dienst, IPv4 192.168.99.30" == greeting
    assert b"mogelijkheden volgen." == dutch.text("capabilities-follow", ascii=True)
    assert b"changing language to 'en'." == ENGLISH.text("language-changed", ascii=True, tag="en")
    accepted = ENGLISH.text("user-accepted", ascii=True, user="luke")
    assert b"user 'luke' accepted, proceed with PASS" == accepted


# Loading


def test_languages_are_sorted_by_tag():
    tags = [language.tag for language in CATALOGUE.languages]

    assert sorted(tags, key=str.lower) == tags


def test_a_further_directory_adds_a_language_and_replaces_one(tmp_path):
    write(tmp_path, 'nothing-done = "noppes"')
    write(tmp_path, tag="fy", name="Frysk")

    catalogue = Catalogue.load([tmp_path], default="fy")

    assert "fy" == catalogue.default.tag
    assert b"noppes" == catalogue.find("nl").text("nothing-done", ascii=True)
    assert len(CATALOGUE.languages) + 1 == len(catalogue.languages)


def test_a_bad_file_stops_the_start_in_one_line_that_names_it(tmp_path):
    path = write(tmp_path, 'tea = "thee"\nnothing-done = ""')

    with pytest.raises(ConfigurationError) as caught:
        Catalogue.load([tmp_path])

    expected = (
        f"language file {path}: tea: unknown text id; en.toml has the list (and 1 more);"
        f" see `pop3hub languages check {path}`"
    )
    assert expected == str(caught.value)


def test_an_unknown_default_names_those_that_are_there():
    with pytest.raises(ConfigurationError, match=r"'tlh' is not known: choose one of ar, .*nl"):
        Catalogue.load(default="tlh")


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_directory_without_languages_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigurationError, match="has no language files"):
        Catalogue.load([tmp_path / name])


# Finding one


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        ("nl", "nl"),
        ("NL", "nl"),
        ("zh-hans", "zh-Hans"),
        ("zh", "zh-Hans"),  # RFC 4647 s3.3.1: the range is the beginning of the tag
        ("nl-BE", "nl"),  # RFC 4647 s3.4: look-up
        ("de-Latn-AT-x-wien", "de"),
        ("n", None),
        ("nld", None),
        ("zh-Hant", None),
        ("MUL", None),
    ],
)
def test_a_range_finds_a_language(wanted, tag):
    found = CATALOGUE.find(wanted)

    assert tag == (found and found.tag)


@pytest.mark.parametrize(
    "wanted", ["", "*", "nl-", "-nl", "nl--be", "nl_BE", "nl be", "nl\n", "n1", "nederlands", "nł"]
)
def test_a_malformed_range_finds_nothing(wanted):
    assert CATALOGUE.find(wanted) is None


# Texts


def test_plural_forms_follow_the_number():
    polish = CATALOGUE.find("pl")

    texts = [polish.text("octets-follow", ascii=True, octets=n).decode() for n in (1, 2, 5, 22)]

    assert ["1 bajt", "2 bajty", "5 bajtow", "22 bajty"] == texts


def test_the_named_number_picks_the_form_and_not_the_first():
    one = ENGLISH.text("no-such-message", ascii=True, number=7, count=1)
    two = ENGLISH.text("no-such-message", ascii=True, number=1, count=2)

    assert (b"no message 7, there is 1", b"no message 1, there are 2") == (one, two)


def test_before_lang_and_utf8_a_text_is_ascii_or_english():
    german, russian = CATALOGUE.find("de"), CATALOGUE.find("ru")

    assert "Nachricht 1 gelöscht".encode() == german.text("message-deleted", ascii=False, number=1)
    assert b"Nachricht 1 geloscht" == german.text("message-deleted", ascii=True, number=1)
    assert "письмо 1 удалено".encode() == russian.text("message-deleted", ascii=False, number=1)
    assert b"message 1 deleted." == russian.text("message-deleted", ascii=True, number=1)


def test_a_text_whose_ascii_form_would_break_a_rule_is_english_too(tmp_path):
    """NFKD makes "[" of the full-width bracket, and a placeholder of full-width braces."""
    body = 'nothing-done = "\uff3bniets\uff3d"\nlog-in-first = "eerst \uff5bname\uff5d"'
    language = check_file(write(tmp_path, body), ENGLISH).language

    assert b"nothing done" == language.text("nothing-done", ascii=True)
    assert b"log in first" == language.text("log-in-first", ascii=True)


@pytest.mark.parametrize(
    ("user", "ascii_form"),
    [
        ("Jürgen Groß", "Jurgen Gross"),
        ("Øyvind Søren Łęcki", "Oyvind Soren Lecki"),
        ("Ægir Þór Œuvre", "AEgir Thor OEuvre"),
        ("Đorđe ıŞİ", "Dorde iSI"),
        ("\u201cl\u2019ami\u201d \u2013 \ufb01n", '"l\'ami" - fin'),
        ("Иван", "????"),
    ],
)
def test_a_field_is_spelled_in_ascii_where_it_can_be(user, ascii_form):
    text = ENGLISH.text("welcome", ascii=True, user=user)

    assert f"pass accepted, welcome '{ascii_form}'.".encode() == text


def test_controls_in_a_field_become_question_marks():
    text = ENGLISH.text("welcome", ascii=False, user="a\r\n-ERR\x00\x7f\x85\u2028\ud800é")

    assert "pass accepted, welcome 'a??-ERR?????é'.".encode() == text


@pytest.mark.parametrize("name", ["[AUTH] x", " [AUTH] x", "\u3000[AUTH] x", "\uff3bAUTH] x"])
def test_no_field_makes_a_text_look_like_a_response_code(name):
    text = ENGLISH.text("signing-off", ascii=True, name=name)

    assert b"- [AUTH] x signing off." == text


def test_braces_in_a_field_are_only_characters():
    text = ENGLISH.text("welcome", ascii=True, user="{user}{0}")

    assert b"pass accepted, welcome '{user}{0}'." == text


def test_a_long_text_is_cut_at_the_border_of_a_character():
    cut = ENGLISH.text("welcome", ascii=False, limit=29, user="é" * 40)
    assert "pass accepted, welcome 'éé".encode() == cut
    assert b"nothing" == ENGLISH.text("nothing-done", ascii=True, limit=7)


def test_a_field_that_isnt_given_is_a_question_mark():
    assert b"message ? deleted." == ENGLISH.text("message-deleted", ascii=True)
    assert b"? octets" == ENGLISH.text("octets-follow", ascii=True)
    assert b"? bajta" == CATALOGUE.find("pl").text("octets-follow", ascii=True)


def test_an_id_that_isnt_known_stands_for_itself():
    assert b"- [X] tea?is cold" == ENGLISH.text("[X] tea\nis cold", ascii=True)


FIELDS = sorted(frozenset().union(*(entry.fields for entry in ENGLISH.entries.values())))
ANYTHING = st.text(st.characters(), max_size=600) | st.integers()


@given(
    language=st.sampled_from(CATALOGUE.languages),
    text_id=st.sampled_from(IDS) | st.text(st.characters()),
    ascii_only=st.booleans(),
    limit=st.just(TEXT_LIMIT) | st.integers(0, 600),
    fields=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(FIELDS, ANYTHING),
    ),
)
def test_whatever_the_fields_hold_a_text_is_part_of_one_legal_line(
    language, text_id, ascii_only, limit, fields
):
    octets = language.text(text_id, ascii=ascii_only, limit=limit, **fields)

    text = octets.decode()
    assert len(octets) <= limit
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)
    assert not text.lstrip(" ").startswith("[")
    assert text.isascii() or not ascii_only


# A new language


def test_a_new_languages_skeleton_needs_a_name_only(tmp_path):
    path = tmp_path / "fy.toml"
    path.write_text(skeleton("fy", ENGLISH))
    assert 1 == len(found_in(path))

    path.write_text(path.read_text().replace('name = ""', 'name = "Frysk"'))
    report = check_file(path, ENGLISH)

    assert () == report.errors
    assert len(IDS) == len(report.missing)


def test_a_skeleton_without_its_comment_signs_is_english(tmp_path):
    head, texts = skeleton("fy", ENGLISH).split("[text]\n")
    head = head.replace('name = ""', 'name = "Frysk"').replace("# one", "one")
    path = tmp_path / "fy.toml"
    path.write_text(f"{head}[text]\n{re.sub('^# ', '', texts, flags=re.MULTILINE)}")

    report = check_file(path, ENGLISH)

    assert ((), ()) == (report.errors, report.missing)
    assert ENGLISH.entries == report.language.entries


@pytest.mark.parametrize("tag", ["", "FR", "fr_FR", "français", "../fr", 'fr"'])
def test_a_skeleton_is_refused_for_a_malformed_tag(tag):
    with pytest.raises(ConfigurationError, match="no language tag"):
        skeleton(tag, ENGLISH)


def test_the_example_of_the_documentation_passes_its_own_check(tmp_path):
    example = re.search("```toml\n(.*?)```", (ROOT / "docs/languages.md").read_text(), re.DOTALL)
    path = tmp_path / "fy.toml"
    path.write_text(example.group(1))

    assert () == found_in(path)


# The code and en.toml

# The servers of pop3hub.testing have words of their own, as other servers do.
SOURCES = [
    path
    for path in sorted((ROOT / "pop3hub").rglob("*.py"))
    if path.parent.name not in {"i18n", "testing"}
]
PLUGINS = sorted((ROOT / "plugins").glob("*/pop3hub_*/*.py"))
# What takes a text id first: two methods, and the errors that keep the signature of PopError.
TELLING = {
    name
    for name, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, PopError) and "text_id" in inspect.signature(each).parameters
} | {"ok", "text"}


def ids_of(tree):
    """Yield id, line and given fields (None: not to be seen) of what is said to a client."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="text_id")], value=ast.Constant(value=str(found))):
                yield found, node.lineno, None
            case ast.AnnAssign(target=ast.Name(id="text_id"), value=ast.Constant(value=str(found))):
                yield found, node.lineno, None
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name),
                args=[ast.Constant(value=str(found)), *_],
                keywords=keywords,
            ) if name in TELLING:
                filled = {keyword.arg for keyword in keywords}
                yield found, node.lineno, None if None in filled else filled


@pytest.mark.parametrize("path", [*SOURCES, *PLUGINS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_id_of_the_code_is_in_the_reference_with_its_fields(path):
    for text_id, line, filled in ids_of(ast.parse(path.read_text())):
        assert text_id in ENGLISH.entries, f"line {line}"
        assert filled is None or ENGLISH.entries[text_id].fields <= filled, f"line {line}"


def test_no_text_id_is_unused():
    constants = {
        node.value
        for path in (*SOURCES, *PLUGINS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }

    assert [] == [text_id for text_id in IDS if text_id not in constants]


def test_no_placeholder_has_the_name_of_an_argument():
    names = set(inspect.signature(ENGLISH.text).parameters)

    assert not any(names & entry.fields for entry in ENGLISH.entries.values())
