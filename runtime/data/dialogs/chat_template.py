"""Jinja chat templates of Hugging Face tokenizers, rendered as transformers renders them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice, pairwise
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ...errors import DataError

DAY = datetime(2025, 1, 1)
"""What `strftime_now` uses as the current date: tokens must not depend on the day."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Message keys that hold thoughts; transformers passes the first two to templates."""
_THOUGHTS = frozenset(REASONING)

TURNS = 1_000_000
"""Numbers that `range` may give while a dialog is rendered."""
LARGEST = 10_000_000
"""Characters, items or bits that an operator may make."""
PRIVATE = range(0xE000, 0xF900)
"""Private-use characters, used as marks."""

_MARKS = "generation marks"
_ASKED = "add_generation_prompt"
_BORDER = "border_of_prompt"
# Attributes of dict, which take precedence over a dict's entries in templates.
_OF_DICT = frozenset(dir(dict))
# Attributes of str that the sandbox leaves unchanged; it wraps the two that format.
_OF_TEXT = frozenset(n for n in dir(str) if not n.startswith("_")) - {"format", "format_map"}

# Attributes of `loop` that say where it is.
_OF_LOOP = frozenset(("index", "index0", "first", "last", "length", "revindex", "revindex0"))


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, which mark what the model writes.

    The block has its own scope, as in transformers. If the context holds marks, they are written
    around the block.
    """

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("marked", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def marked(self, context: Context, caller: Callable[[], str]) -> str:
        left, right = context.get(_MARKS) or ("", "")
        return left + caller() + right


class _Dict:
    """`dict` in templates: creates dicts and exposes nothing else."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """Refuses attributes that begin with an underscore, as transformers does."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *given = args
        named = dict(*given, **values)
        for name in named:
            _require_public(name)
        Namespace.__init__(self, named)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of transformers, with fast paths for what templates read most: dicts and strings.

    Whether an attribute is safe depends on its name and its object's type, and is decided once per
    pair.

    Attributes:
        turns: how many numbers `range` may still give while a dialog is rendered.
    """

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._safe: dict[tuple[type, str], bool] = {}
        self.turns = TURNS
        self.globals["range"] = self._range

    def _range(self, *ends: int) -> range:
        found = range(*ends)
        self.turns -= len(found)
        if self.turns < 0:
            raise jinja2.exceptions.SecurityError(f"it counts more than {TURNS:,} numbers")
        return found

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*` and `**`, the operators that make a lot of little."""
        if operator == "**":
            size = abs(right) * 64 if isinstance(right, int | float) else 0
        else:
            long, times = (right, left) if isinstance(left, int) else (left, right)
            size = len(long) * times if isinstance(long, str | list | tuple) else 0
        if isinstance(size, int | float) and size > LARGEST:
            raise jinja2.exceptions.SecurityError(f"it makes more than {LARGEST:,} characters")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute not in _OF_DICT:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        if (kind is str and attribute in _OF_TEXT) or (
            kind is LoopContext and attribute in _OF_LOOP
        ):
            return getattr(obj, attribute)
        if kind is _Namespace and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        key = (type(obj), attr)
        safe = self._safe.get(key)
        if safe is None:
            safe = self._safe[key] = super().is_safe_attribute(obj, attr, value)
        return safe


def _require_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold `{name}`")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def compiled(text: str) -> tuple[jinja2.Template, bool]:
    """Compiles a template in the environment that transformers gives to chat templates, and says
    whether it can mark where the assistant's header begins in a prompt.

    Raises:
        DataError: it is not a Jinja template.
    """
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": DAY.strftime,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    try:
        parsed = environment.parse(text)
        marks = _mark_border(parsed, environment)
        return environment.from_string(parsed), marks
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"the chat template is broken in line {error.lineno}: {error.message}",
            "fix the Jinja file named by `template` in the dialog",
        ) from None


def _mark_border(template: nodes.Template, environment: jinja2.Environment) -> bool:
    """Lets a template mark the border of a prompt, if only its end depends on
    `add_generation_prompt`.

    If the last thing in a template is `{% if add_generation_prompt %}` without `else`, and nothing
    else reads or sets this name, then what it writes before that is all that it writes without the
    header.
    """
    last = template.body[-1] if template.body else None
    if not isinstance(last, nodes.If) or last.elif_ or last.else_:
        return False
    names = [node.name for node in template.find_all(nodes.Name)]
    asks = isinstance(last.test, nodes.Name) and last.test.name == _ASKED
    if not asks or names.count(_ASKED) > 1 or _BORDER in names:
        return False
    mark = nodes.Output([nodes.Name(_BORDER, "load")]).set_lineno(last.lineno)
    template.body.insert(-1, mark.set_environment(environment))
    return True


class Template:
    """A chat template with the special tokens that it may write.

    Attributes:
        tokens: the special tokens, by their names in templates.
        tells: whether the template marks what the model writes, with `{% generation %}`.

    Raises:
        DataError: it is not a Jinja template.
    """

    def __init__(self, text: str, tokens: Mapping[str, str]) -> None:
        self._compiled, self._borders = compiled(text)
        self.tokens = dict(tokens)
        lexed = self._compiled.environment.lex(text)
        words = [(kind, value) for _, kind, value in lexed if kind != "whitespace"]
        self.tells = any(
            first[0] == "block_begin" and second == ("name", "generation")
            for first, second in pairwise(words)
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: list[dict[str, Any]] | None,
        *,
        prompt: bool = False,
        marks: tuple[str, str] | None = None,
        border: str = "",
    ) -> str:
        """The text of a dialog.

        Args:
            prompt: whether to add the assistant's header (`add_generation_prompt`).
            marks: what to write before and after each `{% generation %}` block.
            border: what to write before the header, if the template can mark it.

        Raises:
            DataError: the template rejects the dialog.
        """
        try:
            self._compiled.environment.turns = TURNS  # type: ignore[attr-defined]
            return self._compiled.render(
                messages=[_with_thoughts(message) for message in messages],
                tools=tools,
                documents=None,
                add_generation_prompt=prompt,
                **self.tokens,
                **({_MARKS: marks} if marks else {}),
                **({_BORDER: border} if self._borders else {}),
            )
        # A template is someone else's program, in which any operation may fail.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(f"the chat template rejects the dialog: {reason}") from None

    def asked(
        self, messages: Sequence[Mapping[str, Any]], tools: list[dict[str, Any]] | None, mark: str
    ) -> tuple[str, int | None]:
        """The text of a prompt, and where the assistant's header begins in it: the text before is
        the dialog's without the header. None: the template does not show that.

        Args:
            mark: a character that the text hardly contains.

        Raises:
            DataError: the template rejects the dialog.
        """
        text = self.render(messages, tools, prompt=True, border=mark)
        if not self._borders:
            return text, None
        before, *after = text.split(mark)
        if len(after) != 1:
            return self.render(messages, tools, prompt=True), None
        return before + after[0], len(before)

    def generations(
        self, messages: Sequence[Mapping[str, Any]], tools: list[dict[str, Any]] | None, text: str
    ) -> list[tuple[int, int]]:
        """The positions of the `{% generation %}` blocks in `text`, the rendered dialog.

        Raises:
            DataError: the template writes a different text when the blocks are marked.
        """
        left, right = free_characters(2, text)
        marked = self.render(messages, tools, marks=(left, right))
        found: list[tuple[int, int]] = []
        plain, begin = "", 0
        for part in re.split(f"([{left}{right}])", marked):
            if part == left:
                begin = len(plain)
            elif part == right:
                found.append((begin, len(plain)))
            else:
                plain += part
        if plain != text:
            raise DataError("the chat template changes the text of its `generation` blocks")
        return found


def free_characters(count: int, *texts: str) -> list[str]:
    """The first `count` private-use characters that occur in none of the texts."""
    free = (chr(code) for code in PRIVATE if not any(chr(code) in text for text in texts))
    return list(islice(free, count))


def _with_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its thoughts under the keys that templates read, as in transformers."""
    if type(message) is dict and _THOUGHTS.isdisjoint(message):
        return message  # templates change nothing
    thoughts = next((message[key] for key in REASONING if message.get(key) is not None), None)
    if thoughts is None:
        return dict(message)
    return {"thinking": thoughts, **message, "reasoning_content": thoughts}
