"""The rules behind findings, as editors show them."""

from ..spec import codes

PAGES = "https://etude.readthedocs.io/en/latest/errors/{code}/"


def known(code: str) -> bool:
    return code in codes.known()


def page(code: str) -> str:
    """Where a rule is documented."""
    return PAGES.format(code=code)


def markdown(code: str) -> str:
    """What a code means, with an example that is wrong and the example mended."""
    rule = codes.rule(code)
    parts = [f"**{rule.code}: {rule.title}**", rule.text]
    for name, example in (("Wrong", rule.wrong), ("Right", rule.right)):
        for text in example.texts.values():
            parts.append(f"{name}:\n```etude\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def unused(code: str) -> bool:
    """Whether a code says that something can go without a change to the plan."""
    title = codes.rule(code).title.lower()
    return "unused" in title or "never used" in title or "nothing uses" in title
