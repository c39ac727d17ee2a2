"""What happens to files: edits, half transfers, other programs, bad disks. Seeded."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?|-?\b\d+\b")
ODD_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-0.0",
    "1e30",
    "0",
    "-1",
    "99999999999999999999",
    "x",
)
ODD_TEXT = (
    "",
    " ",
    "\t",
    "[/b]",
    "[red]",
    "Qq",
    "é",
    "\u2028",
    "\x00",
    "{}",
    "null",
    "'",
    '"',
    "=",
)


def _line(lines: list[str], rng: random.Random) -> int:
    return rng.randrange(len(lines))


def drop_line(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[_line(lines, rng)]
    return "".join(lines)


def repeat_line(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    at = _line(lines, rng)
    return "".join([*lines[:at], lines[at], *lines[at:]])


def blank_line(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(_line(lines, rng), rng.choice(("\n", "   \n", "\r\n")))
    return "".join(lines)


def swap_lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    a, b = _line(lines, rng), _line(lines, rng)
    lines[a], lines[b] = lines[b], lines[a]
    return "".join(lines)


def cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text))]


def odd_number(text: str, rng: random.Random) -> str:
    found = list(NUMBER.finditer(text))
    if not found:
        return text
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(ODD_NUMBERS) + text[match.end() :]


def odd_word(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"[A-Za-z_]+", text))
    if not found:
        return text
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(ODD_TEXT) + text[match.end() :]


def odd_character(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(ODD_TEXT) + text[at + rng.randrange(3) :]


def other_newlines(text: str, rng: random.Random) -> str:
    return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n")))


def byte_order_mark(text: str, rng: random.Random) -> str:
    return "\ufeff" + text


EDITS: tuple[Callable[[str, random.Random], str], ...] = (
    *(drop_line, repeat_line, blank_line, swap_lines, cut),
    *(odd_number, odd_number, odd_word, odd_character, other_newlines, byte_order_mark),
)


def edited(content: bytes, seed: int) -> bytes:
    """One or two edits; now and then another encoding, or bytes that are no text."""
    rng = random.Random(seed)
    text = content.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2))):
        if text:
            text = rng.choice(EDITS)(text, rng)
    if rng.random() < 0.05:
        return text.encode("utf-16")
    data = bytearray(text.encode("utf-8"))
    if data and rng.random() < 0.05:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)
