"""The rules behind findings, as editors show them."""

from ..spec.findings import codes

PAGES = "https://etude.readthedocs.io/en/latest/errors/{code}/"


def known(code: str) -> bool:
    """Whether a code has a page."""
    return code in codes.known()


def page(code: str) -> str:
    """Where a rule is documented."""
    return PAGES.format(code=code)


def markdown(code: str) -> str:
    """What a code means, with an example that is wrong and the example fixed."""
    rule = codes.rule(code)
    parts = [f"**{rule.code}: {rule.title}**", rule.text]
    for name, example in (("Wrong", rule.wrong), ("Right", rule.right)):
        for text in example.texts.values():
            parts.append(f"{name}:\n```etude\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


UNUSED = frozenset(("N652", "N654", "N655", "N656", "W651"))
"""Rules that say that something can go, and nothing changes: editors show it pale."""
