"""Instructions that a program can check, as those of IFEval.

Zhou et al.: Instruction-Following Evaluation for Large Language Models (arXiv:2311.07911, table 1).
The 25 instructions and their arguments have the names of its data set, google/IFEval, and are
checked strictly. It counts sentences with a trained model, here they end at `.`, `!` and `?`; and
whether text in capital or small letters is English is not checked here.

This is part of the process of `child.py`, and imports nothing else of etude.
"""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What `constrained_response` allows."""
RELATIONS = ("at least", "less than")
IDS, ARGUMENTS = "instruction_id_list", "kwargs"
"""The fields of a record with its instructions, and with the arguments of each."""

Check = Callable[..., bool]
"""(text, **arguments) → whether it follows the instruction."""
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
_FENCED = re.compile(r"```(?:json)?(.*?)(?:```)?", re.DOTALL | re.IGNORECASE)


def _related(count: int, relation: str, number: int) -> bool:
    return count >= number if relation == "at least" else count < number


def _found(text: str, words: Sequence[str], *, whole: bool = False) -> int:
    """How often words occur, in any case."""
    border = r"\b" if whole else ""
    either = "|".join(re.escape(word.strip()) for word in words)
    return len(re.findall(f"{border}(?:{either}){border}", text, re.IGNORECASE))


def _parts(text: str, divider: str) -> list[str] | None:
    """The parts of a text between dividers, which may begin and end it; None if one is empty."""
    parts = [part.strip() for part in re.split(divider, text)]
    parts = parts[not parts[0] :]
    parts = parts[: len(parts) - (bool(parts) and not parts[-1])]
    return parts if all(parts) else None


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(_found(text, [word]) for word in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _related(_found(text, [keyword]), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not _found(text, forbidden_words, whole=True)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _related(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:
    """A text of which no language can be told, such as digits, follows."""
    import langdetect  # pyright: ignore[reportMissingImports] (an extra)

    langdetect.DetectorFactory.seed = 0
    try:
        return langdetect.detect(text) == language
    except langdetect.LangDetectException:
        return True


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    sentences = re.split(r"[.!?]+[\"')\]]*(?:\s+|$)", text)
    return _related(sum(bool(each.strip()) for each in sentences), relation, num_sentences)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    return len(_parts(text, r"\*\*\*") or ()) == num_paragraphs


def _words(text: str, num_words: int, relation: str) -> bool:
    return _related(len(re.findall(r"\w+", text)), relation, num_words)


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = [each.strip() for each in text.split("\n\n") if each.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    first = paragraphs[nth_paragraph - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", first)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    return bool(re.search(_POSTSCRIPTS.get(marker, re.escape(marker)), text, re.IGNORECASE))


def _bullets(text: str, num_bullets: int) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-)", text, re.MULTILINE)) == num_bullets


def _constrained(text: str) -> bool:
    return any(option in text for option in OPTIONS)


def _highlights(text: str, num_highlights: int) -> bool:
    """Pieces between single asterisks, and between double ones."""
    marked = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(each.strip("*").strip()) for each in marked) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    heads = re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)
    return len(heads) >= num_sections


def _json(text: str) -> bool:
    fenced = _FENCED.fullmatch(text.strip())
    try:
        json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(each.strip() for each in re.findall(r"<<([^\n]+?)>>", text))


def _two(text: str) -> bool:
    parts = _parts(text, r"\*{6}")
    return parts is not None and len(parts) == 2 and parts[0] != parts[1]


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    words = re.findall(r"\w+(?:-\w+)*", text)
    return _related(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _comma(text: str) -> bool:
    return "," not in text


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: Mapping[str, Check] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "punctuation:no_comma": _comma,
}
"""The instructions, by their names in IFEval."""


def in_record(record: Mapping[str, Any]) -> list[str] | None:
    """The instructions of a record of IFEval, each as JSON: its name and its arguments; None if it
    has none. Arguments that are null belong to other instructions."""
    ids, arguments = record.get(IDS), record.get(ARGUMENTS)
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments):
        return None
    return [
        json.dumps([name, {key: each for key, each in (of or {}).items() if each is not None}])
        for name, of in zip(ids, arguments, strict=True)
    ]


def misfit(instructions: Sequence[str]) -> str:
    """Why instructions cannot be checked, for people; "" if they can."""
    return next(filter(None, map(_misfit, instructions)), "")


def _misfit(instruction: str) -> str:
    try:
        name, arguments = json.loads(instruction)
        check = CHECKS.get(name)
    except (ValueError, TypeError):
        return f"`{instruction}` is no instruction of IFEval, as `{IDS}` names them"
    if check is None:
        return f"there is no instruction `{name}`"
    if check is _language and importlib.util.find_spec("langdetect") is None:
        return f"`{name}` needs the package langdetect: pip install 'etude[verify]'"
    try:
        if check in (str.isupper, str.islower):
            check = _comma  # it takes no arguments, either
        bound = signature(check).bind("", **arguments).arguments
    except TypeError as problem:
        return f"`{name}` has other arguments: {problem}"
    wrong = [each for key, each in bound.items() if "relation" in key and each not in RELATIONS]
    if wrong:
        return f"the relation `{wrong[0]}` of `{name}` is neither {' nor '.join(RELATIONS)}"
    return ""


def follows(instructions: Sequence[str], text: str) -> float:
    """1 if a text follows all instructions, 0 if it does not, or is empty."""
    wanted = [json.loads(each) for each in instructions]
    checks = [partial(CHECKS[name], text, **arguments) for name, arguments in wanted]
    return float(bool(text.strip()) and all(check() for check in checks))
