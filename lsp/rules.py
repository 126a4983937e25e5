"""The rules behind findings, as editors show them."""

from ..spec.findings import codes

PAGES = "https://etude.readthedocs.io/en/latest/errors/{code}/"


def known(code: str) -> bool:
    """Whether a code has a page."""
    return code in codes.known()


def page(code: str) -> str:
    """The URL of a rule's documentation."""
    return PAGES.format(code=code)


def markdown(code: str) -> str:
    """What a code means, with a wrong example and the example fixed."""
    rule = codes.rule(code)
    parts = [f"**{rule.code}: {rule.title}**", rule.text]
    for name, example in (("Wrong", rule.wrong), ("Right", rule.right)):
        for text in example.texts.values():
            parts.append(f"{name}:\n```etude\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


UNUSED = frozenset(("N652", "N654", "N655", "N656", "W651"))
"""Rules that say that something can be removed without effect: editors show it faded."""
