"""Brackets of texts that were changed in places: the same answer as of the whole text."""

from random import Random

from specs import HEAD, after, stage

from etude.spec.text.brackets import Attempts, brackets, is_balanced

PAIRS = {"{": "}", "[": "]", "(": ")"}
HARD = 'a = { b = "}" # {\n c = ["\\"]", 2] }\n# "\nd = ( "open\n } )\n'


def one_by_one(text: str) -> bool:
    opened: list[str] = []
    for _, kind in brackets(text):
        if kind in PAIRS:
            opened.append(PAIRS[kind])
        elif not opened or opened.pop() != kind:
            return False
    return not opened


def test_brackets_match_or_do_not() -> None:
    assert is_balanced("a { b = [1, (2)] } # }")
    assert is_balanced('"}"')
    for text in ("{", "}", "{]", "{[}]", ")(", "{{}", "{}}"):
        assert not is_balanced(text), text


def test_a_changed_text_is_judged_as_if_it_were_read_as_a_whole() -> None:
    chance = Random(3)
    seen = {True: 0, False: 0}
    for text in (HARD, HEAD + stage() + after()):
        attempts = Attempts(text)
        for _ in range(1500):
            at = chance.randrange(len(text))
            put = "".join(chance.choices('{}[]()"#\\ \n', k=chance.choice([1, 1, 2])))
            put = chance.choice([put, put, "", text[at : at + 1]])
            changed = text[:at] + put + text[at + chance.choice([0, 1, len(put)]) :]
            assert attempts.match(changed) == is_balanced(changed) == one_by_one(changed), changed
            seen[attempts.match(changed)] += 1
    assert min(seen.values()) > 100
