"""Surrogates of single header fields, for clients that take ASCII alone (RFC 6858 s2).

Text in, ASCII text out; nothing here knows a message. No text makes these functions fail, and all
take time in proportion to its length: the standard library's address parsers raise RecursionError
on two thousand opening parentheses, so addresses have a small tokenizer of their own here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Token: TypeAlias = tuple[str | None, str]

INVALID_ADDRESS = "<invalid@internationalized-address.invalid>"
"""Stands for each address that ASCII can't show; nobody can own it (RFC 6858 s2.1, RFC 2606 s2)."""

LINE_WIDTH = 76
"""Octets of a line that holds an encoded-word, without its CRLF (RFC 2047 s2)."""
ENCODED_TEXT = 48
"""Octets of an encoded-word's text. RFC 2047 s2 allows 63; this fits beside each field name."""

_NEWLINE = re.compile(r"\r?\n")
_CONTROLS = dict.fromkeys((*range(32), 127), " ")
# What never ends (a quoted string, and a comment below) goes on to the end of the text.
_TOKEN = re.compile(
    r"""(?P<space>\ +)
    | (?P<quoted>"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))
    | (?P<literal>\[[^]\[\\<>,;"\ ]*+\])
    | (?P<special>[,:;<>])
    | (?P<comment>\()
    | (?P<text>[^\ "\[,:;<>(]++|\[)
    """,
    re.VERBOSE,
)
_IN_COMMENT = re.compile(r"\\.|[()]")
_ESCAPED = re.compile(r"\\(.)")
_NEEDS_ESCAPE = re.compile(r'(["\\])')
_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_WORD = re.compile(r"(?:^| )( *[^ ]+)")
_ENCODED_WORD = re.compile(r" *=\?[^? ]+\?[BbQq]\?[^? ]*\?=")
_SECTION = re.compile(r"([^*]+)\*[0-9]+\*?")
# The set that RFC 2047 s5 (3) leaves to the words of a phrase; it is safe everywhere else too.
_AS_THEMSELVES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")


class _Word(NamedTuple):
    """A word as the field has it, and the text that it means."""

    source: str
    text: str


def surrogate_field(name: str, value: str) -> str | None:
    """Return the surrogate of a field, with its CRLF; None if the field has to go.

    `value` is what stands behind the colon, folded as it is; some of it is outside ASCII.
    """
    write = _WRITERS.get(name.lower())
    atoms = write(unfold(value)) if write else []
    return _fold(name, atoms) if atoms else None


def unfold(value: str) -> str:
    """Return a field's value on one line, without the white space around it."""
    return _NEWLINE.sub("", value).translate(_CONTROLS).strip(" ")


def segments(text: str) -> list[str]:
    """Return the value of a field like Content-Type, and its parameters if there are any."""
    found: list[str] = []
    segment: list[str] = []
    for _, source in _tokens(text):
        if source == ";":
            found.append("".join(segment).strip(" "))
            segment = []
        else:
            segment.append(source)
    found.append("".join(segment).strip(" "))
    return [found[0], *filter(None, found[1:])]


def without_comments(text: str) -> str:
    """Return a structured text without its comments and the white space around it."""
    return "".join(source for kind, source in _tokens(text) if kind != "comment").strip(" ")


def unquote(source: str) -> str:
    """Return the text of a quoted string (RFC 5322 s3.2.4); its last quote may be missing."""
    return _ESCAPED.sub(r"\1", source[1:-1] if _QUOTED.fullmatch(source) else source[1:])


def _fold(name: str, atoms: list[str]) -> str:
    """Return a whole field, folded between its atoms; the first stays beside the name."""
    lines = [f"{name}: {atoms[0]}"]
    for atom in atoms[1:]:
        if len(lines[-1]) + 1 + len(atom) > LINE_WIDTH:
            lines.append("")
        lines[-1] += f" {atom}"
    return "\r\n".join(lines) + "\r\n"


def _tokens(text: str) -> Iterator[Token]:
    """Yield kind and source of each token of a structured field (RFC 5322 s3.2)."""
    position = 0
    while match := _TOKEN.match(text, position):
        end = match.end()
        if match.lastgroup == "comment":
            end = _comment_end(text, position)
        yield match.lastgroup, text[position:end]
        position = end


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for match in _IN_COMMENT.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if not depth:
            return match.end()
    return len(text)


# --- Words (RFC 2047) ---


def _show(words: Iterable[_Word]) -> list[str]:
    """Return words with those outside ASCII, and what stands between these, as encoded-words.

    Encoded-words that were there stay. White space between two of them is not shown (RFC 2047
    s6.2), so that beside an old one goes into the new one.
    """
    groups = [list(group) for _, group in groupby(words, key=_is_encoded)]
    shown: list[str] = []
    for number, group in enumerate(groups):
        beyond = [index for index, word in enumerate(group) if not word.text.isascii()]
        if not beyond:
            shown += [word.source for word in group]
            continue
        first, last = beyond[0], beyond[-1] + 1
        text = " ".join(word.text for word in group[first:last])
        if first == 0 and number > 0:
            text = f" {text}"
        if last == len(group) and number + 1 < len(groups):
            text = f"{text} "
        shown += [word.source for word in group[:first]]
        shown += _encoded_words(text)
        shown += [word.source for word in group[last:]]
    return shown


def _is_encoded(word: _Word) -> bool:
    return bool(_ENCODED_WORD.fullmatch(word.source))


def _encoded_words(text: str) -> list[str]:
    """Return encoded-words of whole characters: Q where most are ASCII, else B (RFC 2047 s4)."""
    if 2 * sum(map(str.isascii, text)) > len(text):
        quoted = {char: _quote(char) for char in set(text)}
        pieces = _pieces(text, {char: len(quoted[char]) for char in quoted}, ENCODED_TEXT)
        return [f"=?utf-8?q?{''.join(map(quoted.__getitem__, piece))}?=" for piece in pieces]
    lengths = {char: len(char.encode()) for char in set(text)}
    pieces = _pieces(text, lengths, ENCODED_TEXT // 4 * 3)
    return [f"=?utf-8?b?{b64encode(piece.encode()).decode()}?=" for piece in pieces]


def _pieces(text: str, lengths: dict[str, int], limit: int) -> Iterator[str]:
    start = length = 0
    for index, char in enumerate(text):
        length += lengths[char]
        if length > limit:
            yield text[start:index]
            start, length = index, lengths[char]
    yield text[start:]


def _quote(char: str) -> str:
    if char in _AS_THEMSELVES:
        return char
    return "_" if char == " " else "".join(f"={octet:02X}" for octet in char.encode())


def _subject(text: str) -> list[str]:
    return _show(_Word(source, source) for source in _WORD.findall(text))


# --- Addresses (RFC 5322 s3.4) ---


def _address_list(text: str) -> list[str]:
    """Return the atoms of an address list: groups and ASCII addresses stay as they are."""
    atoms: list[str] = []
    item: list[Token] = []
    in_angle = False
    for token in _tokens(text):
        _, source = token
        if source in {"<", ">"}:
            in_angle = source == "<"
        if in_angle or source not in {",", ":", ";"}:
            item.append(token)
            continue
        found = _group_name(item) if source == ":" else _mailbox(item)
        item = []
        if found:
            atoms += [*found[:-1], found[-1] + source]
        elif source == ":" or (source == ";" and not "".join(atoms[-1:]).endswith(";")):
            atoms.append(source)  # of a group without a name, or without members
    return atoms + _mailbox(item)


def _group_name(tokens: list[Token]) -> list[str]:
    words, comments = _words_and_comments(tokens)
    return _show(words) + comments


def _mailbox(tokens: list[Token]) -> list[str]:
    """Return the atoms of one mailbox, with an invalid address if its own is outside ASCII."""
    whole = "".join(source for _, source in tokens).strip(" ")
    if whole.isascii():
        return whole.split()
    outside: list[Token] = []
    angles: list[list[str]] = []
    in_angle = False
    for kind, source in tokens:
        if source in {"<", ">"}:
            in_angle = source == "<"
            if in_angle:
                angles.append([])
        elif in_angle and kind != "comment":
            angles[-1].append(source)
        else:
            outside.append((kind, source))
    words, comments = _words_and_comments(outside)
    if angles:
        address = " ".join("".join(angle).strip(" ") for angle in angles)
        if address.isascii() and len(angles) == 1:
            return [*_show(words), f"<{address}>", *comments]
    else:  # without angle brackets there is no display-name
        address = " ".join(word.text for word in words)
        if address.isascii():
            return [*address.split(), *comments]
        words = []
    return [*_show(words or [_Word(address, address)]), INVALID_ADDRESS, *comments]


def _words_and_comments(tokens: list[Token]) -> tuple[list[_Word], list[str]]:
    """Return the words of a phrase, and its comments with ASCII alone in them."""
    words: list[_Word] = []
    comments: list[str] = []
    for is_space, group in groupby(tokens, key=lambda token: token[0] in {"space", "comment"}):
        parts = list(group)
        if is_space:
            comments += [_comment(source) for kind, source in parts if kind == "comment"]
            continue
        source = "".join(source for _, source in parts)
        text = "".join(unquote(part) if kind == "quoted" else part for kind, part in parts)
        if not _PLAIN.fullmatch(source) and not _QUOTED.fullmatch(source):
            source = '"' + _NEEDS_ESCAPE.sub(r"\\\1", text) + '"'
        words.append(_Word(source, text))
    return words, comments


def _comment(source: str) -> str:
    if source.isascii():
        return source
    return f"({' '.join(_encoded_words(source[1:].removesuffix(')')))})"


def _return_path(text: str) -> list[str]:
    """Return the path, which has no display-name to tell what was there."""
    path = without_comments(text)
    return [path if path.isascii() else INVALID_ADDRESS]


# --- MIME parameters (RFC 2045 s5.1, RFC 2231) ---


def _parameters(text: str) -> list[str]:
    """Return the value and those of its parameters that ASCII can show."""
    value, *parameters = segments(text)
    if not value.isascii():
        value = without_comments(value)
    if not value or not value.isascii():
        return []
    # One section less would change the value of a parameter that is continued (RFC 2231 s3).
    lost = {_continued(parameter) for parameter in parameters if not parameter.isascii()}
    kept = [
        parameter
        for parameter in parameters
        if parameter.isascii() and (_continued(parameter) or parameter) not in lost
    ]
    return [*(f"{atom};" for atom in [value, *kept][:-1]), [value, *kept][-1]]


def _continued(parameter: str) -> str | None:
    """Return the name of a parameter that comes in numbered sections."""
    match = _SECTION.fullmatch(parameter.partition("=")[0].strip(" ").lower())
    return match and match[1]


_WRITERS: dict[str, Callable[[str], list[str]]] = {
    "subject": _subject,
    "return-path": _return_path,
    "content-type": _parameters,
    "content-disposition": _parameters,
    **dict.fromkeys(
        (
            "bcc",
            "cc",
            "from",
            "reply-to",
            "resent-bcc",
            "resent-cc",
            "resent-from",
            "resent-sender",
            "resent-to",
            "sender",
            "to",
        ),
        _address_list,
    ),
}
"""The fields that RFC 6858 s2 keeps; each other one goes (s2.4)."""
