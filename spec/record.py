"""Records: frozen values with named fields, like data classes, but made without generating code.

The standard library writes the methods of every data class as text and compiles them, which takes a
millisecond or two each. There are dozens here, and that alone would exceed the time that checking
a spec may take.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

Of = TypeVar("Of", bound="Record")
MISSING: Any = object()
"""The default of a required field."""


class Field(NamedTuple):
    """What a record knows about one of its fields; see `field`."""

    default: Any
    default_factory: Callable[[], Any] | None
    compare: bool
    metadata: Any


def field(
    *,
    default: Any = MISSING,
    default_factory: Callable[[], Any] | None = None,
    compare: bool = True,
    metadata: Any = None,
) -> Any:
    """A field that needs more than a type and a default.

    Args:
        default_factory: makes a new default for each record.
        compare: whether equality uses the field. If not, it is not shown either.
        metadata: for the code that declares the field.
    """
    return Field(default, default_factory, compare, metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
class Record:
    """A value whose fields are the annotated attributes of its class and of its base classes.

    Fields are given by name; with `kw_only=False` also by position. Records are equal if they have
    the same class and equal fields. With `before="x"`, the fields that a class adds come before the
    inherited `x` instead of last.
    """

    _fields: ClassVar[dict[str, Field]] = {}
    _positional: ClassVar[tuple[str, ...]] = ()
    _compared: ClassVar[tuple[str, ...]] = ()
    _key: ClassVar[Any] = type
    _defaults: ClassVar[dict[str, Any]] = {}
    _factories: ClassVar[dict[str, Callable[[], Any]]] = {}

    def __init_subclass__(cls, *, kw_only: bool = True, before: str = "") -> None:
        known = dict(cls._fields)
        behind = list(known)[list(known).index(before) :] if before else []
        for name, annotation in cls.__annotations__.items():
            if "ClassVar" in str(annotation):
                continue
            default = cls.__dict__.get(name, MISSING)
            if isinstance(default, Field):
                delattr(cls, name)
            known[name] = default if isinstance(default, Field) else field(default=default)
        for name in behind:
            known[name] = known.pop(name)
        cls._fields = known
        cls._positional = () if kw_only else tuple(known)
        cls._compared = tuple(name for name, of in known.items() if of.compare)
        cls._key = staticmethod(attrgetter(*cls._compared) if cls._compared else type)
        cls._defaults = {n: of.default for n, of in known.items() if of.default is not MISSING}
        cls._factories = {n: of.default_factory for n, of in known.items() if of.default_factory}

    def __init__(self, *args: Any, **values: Any) -> None:
        """Raises: TypeError: a value is missing, unknown or given twice."""
        given = values
        if args:
            given = dict(zip(self._positional, args, strict=False))
            given.update(values)
        own = given
        if len(own) < len(self._fields):
            own = self._defaults | given
            for name, make in self._factories.items():
                if name not in own:
                    own[name] = make()
        lost = len(given) < len(args) + len(values)
        if lost or own.keys() != self._fields.keys():
            self._refuse(args, values, own)
        self.__dict__.update(own)

    def _refuse(self, args: tuple[Any, ...], values: dict[str, Any], own: dict[str, Any]) -> None:
        """Raises: TypeError: always; says what is wrong."""
        if len(args) > len(self._positional):
            raise TypeError(f"{type(self).__name__}: too many values by position")
        wrong = (
            own.keys() ^ self._fields.keys() | set(self._positional[: len(args)]) & values.keys()
        )
        what = f"missing, unknown or given twice: {', '.join(sorted(wrong))}"
        raise TypeError(f"{type(self).__name__}: {what}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or self._key(self) == self._key(other)

    def __hash__(self) -> int:
        return hash(self._key(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._compared)
        return f"{type(self).__name__}({shown})"


def fields(of: type[Record] | Record) -> dict[str, Field]:
    """The fields of a record or of its class, by name, in order."""
    return of._fields


def replace(record: Of, **changes: Any) -> Of:
    """The record with some fields changed."""
    return type(record)(**{name: getattr(record, name) for name in record._fields} | changes)
