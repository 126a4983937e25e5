"""Text of data sets on terminals."""

import pytest
from rich.cells import cell_len

from etude.cli.preview_text import Span, Style, lines

PIPE = Style.of(False, "utf-8", 80)
TERMINAL = Style.of(True, "utf-8", 80)
ASCII = Style.of(False, "ascii", 80)


def drawn(text: str, style: Style = PIPE, width: int = 40, *, learned: bool = False) -> list[str]:
    return list(lines([Span(text, "learned" if learned else "plain")], style, width))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\nb", ["a⏎", "b"]),
        ("a\n\n\nb", ["a⏎⏎⏎", "b"]),
        ("a\r\nb", ["a␍⏎", "b"]),
        ("a\tb", ["a⇥b"]),
        ("\033[2J\033]0;x\007", ["␛[2J␛]0;x␇"]),
        ("\x9b2J\x7f", ["<U+009B>2J<U+007F>"]),
        ("a\u200bb\u202ec\u2028d\ufeff", ["a<U+200B>b<U+202E>c<U+2028>d<U+FEFF>"]),
        ("a\u00a0b", ["a<U+00A0>b"]),
        ("⟦x⟧", ["<U+27E6>x<U+27E7>"]),
        ("שלום", ["שלום"]),
        ("👩\u200d👩\u200d👧", ["👩\u200d👩\u200d👧"]),
        ("a\u200db", ["a<U+200D>b"]),
        ("\u0301a", ["\u25cc\u0301a"]),
        ("\ufffd", ["\ufffd"]),
    ],
)
def test_all_can_be_seen_and_nothing_reaches_the_terminal(text: str, seen: list[str]) -> None:
    assert drawn(text) == seen


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA1), 0x200E, 0x2066, 0xE0001])
def test_no_control_character_is_printed(number: int) -> None:
    for style in (PIPE, TERMINAL, ASCII):
        out = "".join(drawn(f"a{chr(number)}b", style)).replace("\033[0m", "")
        out = out.replace("\033[2;35m", "")
        assert number == 0x20 or chr(number) not in out


def test_lines_keep_their_width_and_break_at_spaces_and_between_whole_characters() -> None:
    assert drawn("one two three four", width=10) == ["one two ", "three four"]
    flags = drawn("🇩🇪🇫🇷🇮🇹🇪🇸🇵🇹", width=5)
    assert all(cell_len(line) <= 5 for line in flags)
    assert "".join(flags) == "🇩🇪🇫🇷🇮🇹🇪🇸🇵🇹"
    assert all(len(line) % 2 == 0 for line in flags)
    assert drawn("e\u0301" * 8, width=4) == ["e\u0301" * 4] * 2
    assert [cell_len(line) for line in drawn("漢" * 7, width=6)] == [6, 6, 2]


def test_brackets_stand_where_there_is_no_colour() -> None:
    spans = [
        Span("a", "plain"),
        Span("b", "learned"),
        Span("c", "learned special"),
        Span("d", "plain"),
    ]
    assert list(lines(spans, PIPE, 20)) == ["a⟦bc⟧d"]
    assert list(lines(spans, ASCII, 20)) == ["a[[bc]]d"]
    assert list(lines(spans, TERMINAL, 20)) == ["a\033[1;32mb\033[0m\033[1;4;32mc\033[0md"]


def test_where_an_encoding_lacks_characters_their_numbers_stand() -> None:
    assert drawn("aé\n漢", ASCII) == ["a<U+00E9>\\n", "<U+6F22>"]
