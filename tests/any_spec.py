"""Specs over the whole language: every block, attribute, statement and form of a value.

They bind without errors; whether they can be planned is another question. `VALUES` has what an
attribute may be, by its name; a test holds that no attribute is missing and that each is reached.
"""

import random
from collections.abc import Iterator
from typing import Any

from etude.spec import schedule as sc
from etude.spec.schema import group_kinds as g
from etude.spec.schema import kinds as k
from etude.spec.schema import number_kinds as nk
from etude.spec.schema import recipe as r
from etude.spec.schema.convert_schedule import ScheduleOf
from etude.spec.schema.group_kinds import Weighted
from etude.spec.schema.precision import Parts, Recompute
from etude.spec.schema.tracking import Label

TEXTS = [
    '"x"',
    '"a \\"b\\" \\\\ é\\n"',
    '"corpus/**/*.jsonl"',
    '"3 steps"',
    '"# {"',
    '"\\u00e9 → 漢"',
]
COUNTS = ["1", "2", "64", "1_000", "8k", "2Ki", "3e2", "128.0"]
TOKENS = ["64", "2k tokens", "1.5M", "8Ki tokens", "2_000"]
STEPS = ["10", "10 steps", "2k", "100 steps"]
DOCS = ["3", "3 docs", "1k docs"]
REALS = ["0.1", "3e-4", "1", "2.5", "1E-2", "0.30", "1_0.5"]
SHARES = ["1%", "0.5%", "50%", "0%"]
LENGTHS = ["10 steps", "500 tokens", "50%", "1 step", "2k tokens"]
SHAPES = ["", *(f" {shape}" for shape in sc.SHAPES)]
SETS = [
    "web",
    "math",
    "asked[round]",
    "ranked[1..round]",
    "ranked[2]",
    "drafts.pairs",
    "align.drafts",
]
STAGES = ["first", "second", "previous.chat or first", "align.chat", "align.chat[2]", "chat[1]"]
COUNTED = {
    "documents": DOCS,
    "skip": DOCS,
    "pairs": ["5", "5 pairs"],
    "ratings": ["5", "5 ratings"],
    "solutions": ["5", "5 solutions"],
    "dialogs": ["5", "5 dialogs"],
    "bad_lines": ["0", "3"],
    "mtp": ["0", "1", "8"],
    "tokens": TOKENS,
    "context": TOKENS,
    "max_tokens": TOKENS,
    "original": TOKENS,
    "window": TOKENS,
    "steps": STEPS,
    "every": STEPS,
    "refresh": STEPS,
    "group": ["2", "8", "1_0"],
    "most": ["2", "10"],
    "above": ["10", "1", "2.5"],
    "clip_ratio": ["[0.2, 0.28]", "[0.5, 3]"],
    "checkpoint": STEPS,
    "seed": ["0", "7", "1_000"],
    "epochs": ["2", "1.5 epochs", "1 epoch"],
    "keep": ["best", "all", "2"],
    "shared": ["0", "1"],
    "dense": ["0", "1"],
    "queries": ["0", "64"],
    "factor": ["4", "1.5"],
    "label_smoothing": ["0", "0.1"],
    "ema": ["0.5", "0.999"],
    "top_p": ["1", "0.9"],
    "momentum": ["0", "0.9"],
    "ns_steps": ["5", "1"],
    "qk_clip": ["100", "0.5"],
    "betas": ["[0.9, 0.95]", "[0, 0.5]"],
    "weights": ["[1, 3]", "[0.5, 0.5]"],
    "lengths": ["[16, 32 tokens]", "[2k]"],
    "after": LENGTHS,
    "over": LENGTHS,
    "gpus": ['8 of "H100 80GB"', '1 of "é"'],
    "roles": ["[user, assistant]"],
    "on": ["[web]", "[web, math]"],
    "verify": ["[right]", "[right, brief]"],
    "suites": ['{ math ["a", "b"], code "c" }', '{ one ["x"] }'],
}
"""What attributes may be whose converters do not tell."""
MOMENTS = ["", "", " at 10 steps", " at 50%", " at 2k tokens"]
FIGURES = ["parameters", "first.steps", "align.chat.steps", "flops", "first.lr", "first.batch"]
CODES = ["W601", "W606", "W622", "N656", "W618"]
UNITS = {"steps": "steps", "batch": "tokens"}


class Writer:
    """Writes a spec, at random but for the choices of `chance`."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lets: list[str] = []

    def spec(self) -> str:
        """The text of a spec, with one statement a line."""
        header = self.block("recipe all", r.Header)
        blocks: list[str] = []
        for keyword, names in {
            "model": ["tiny", "big"],
            "tokenizer": ["words"],
            "cluster": ["box"],
            "dialog": ["chat"],
            "verifier": ["right"],
            "dataset": ["web", "math", "asked", "ranked"],
        }.items():
            blocks += [self.block(f"{keyword} {name}", r.BLOCKS[keyword]) for name in names]
        stages = [self.stage(name) for name in ("first", "second", *self.some(["a", "b", "third"]))]
        if self.often():
            number = self.maybe_let("2", plain=True)
            inner = "".join(self.stage(name) for name in ("rm", "drafts", "sft", "chat"))
            stages.insert(1, f"rounds align {number} {{\n{inner}{self.allows()}}}\n")
        uses = [f'use "{name}.etude"\n' for name in self.some(["one", "two/three"])]
        blocks += [*stages, *uses, *self.expectations(), *self.variants()]
        if self.often():
            self.chance.shuffle(blocks)
        return header + "".join(self.lets) + "".join(blocks)

    # Chance

    def often(self) -> bool:
        return self.chance.random() < 0.6

    def rarely(self) -> bool:
        return self.chance.random() < 0.15

    def one(self, of: list[Any]) -> Any:
        return of[self.chance.randrange(len(of))]

    def some(self, of: list[Any]) -> list[Any]:
        return [each for each in of if self.often()]

    def maybe_let(self, value: str, *, plain: bool = False) -> str:
        """The value, or the name of a `let` that has it."""
        if not (self.often() if plain else self.rarely()):
            return value
        name = f"let_{len(self.lets)}"
        self.lets.append(f"let {name} = {value}\n")
        return name

    # Blocks

    def stage(self, name: str) -> str:
        model = self.one(list(r.STAGES.values()))
        return self.block(f"stage {name}: {model.kind}", model)

    def block(self, head: str, model: type[r.Declaration]) -> str:
        lines = list(self.attributes(model))
        if model is r.Dataset:
            lines += self.some(
                [
                    f"keep {self.maybe_let('10%')} where first.loss > {self.maybe_let('4.0')}",
                    "drop where first.loss <= 8",
                    f"drop where url in {self.one(TEXTS)}",
                    'keep where lang in "l.txt"',
                    "keep where first.loss >= 2",
                ]
            )
        if issubclass(model, r.PreferenceTraining) and self.often():
            lines.append(f"drop similar > {self.maybe_let('90%')}")
        self.chance.shuffle(lines)
        return f"{head} {{\n" + "".join(f"  {line}\n" for line in lines) + self.allows() + "}\n"

    def allows(self) -> str:
        return "".join(
            f"  allow {self.one(CODES)} {self.one(TEXTS)}\n" for _ in range(2) if self.rarely()
        )

    def attributes(self, model: type[r.Declaration], *, in_value: bool = False) -> Iterator[str]:
        """What a block or group gives; in a value nothing can be allowed."""
        for name, attribute in r.attributes(model).items():
            if not (attribute.required or self.often()):
                continue
            kind = attribute.kind
            if isinstance(kind, g.Mark):
                yield name
            elif isinstance(kind, g.Block):
                yield self.gate()
            elif isinstance(kind, nk.Every) and self.often():
                yield f"{name} every {self.maybe_let(self.one(STEPS))}"
            elif isinstance(kind, nk.Keep):
                number = self.maybe_let(self.one(["1", "2", "5"]))
                steps = self.maybe_let(self.one(STEPS))
                yield self.one([f"{name} all", f"{name} last {number}", f"{name} every {steps}"])
            elif isinstance(kind, g.Group) and model is not r.Gate and self.rarely():
                inner = list(self.attributes(kind.holds, in_value=in_value))
                allows = "" if in_value else self.allows().strip()
                yield f"{name} {{\n" + "\n".join([*inner, allows]) + "\n}"
            elif model.entries and self.often():
                yield f"{name} {self.value(model, name)}"
            else:
                yield f"{name} = {self.maybe_let(self.value(model, name))}{self.source()}"

    def source(self) -> str:
        if not self.rarely():
            return ""
        return f" {self.one(['cite', 'assumed'])} {self.maybe_let(self.one(TEXTS))}"

    def gate(self) -> str:
        lines = [f"require needle {self.one(['>=', '>'])} {self.maybe_let('90%')}"]
        lines += self.some(
            [
                "require loss(short) <= 102% of start",
                "require loss(web) < 9.5",
                "needle = " + self.group(r.Needle),
                f"otherwise extend {self.maybe_let('10 steps')} at most "
                f"{self.one(['1 time', '3 times'])}",
            ]
        )
        return "gate seq_len {\n" + "\n".join(lines) + "\n" + self.allows() + "}"

    def expectations(self) -> Iterator[str]:
        for _ in range(self.chance.randrange(3)):
            lines = [self.claim() for _ in range(self.chance.randrange(4))]
            yield "expect {\n" + "\n".join(lines) + f"\n{self.allows()}}}\n"

    def claim(self) -> str:
        name = self.one(FIGURES)
        within = f" within {self.maybe_let('1%')}" if self.often() else ""
        if within and self.often():
            within += f" {self.one(['because', 'contradicted'])} {self.maybe_let(self.one(TEXTS))}"
        cite = f" cite {self.one(TEXTS)}" if self.often() else ""
        return f"{name}{self.one(MOMENTS)} = {self.maybe_let('3')}{within}{cite}"

    def variants(self) -> Iterator[str]:
        changes = {
            "tiny.dim": (r.Model, "dim"),
            "model.tiny.layers": (r.Model, "layers"),
            "first.lr": (r.Train, "lr"),
            "first.data": (r.Train, "data"),
            "web.files": (r.Dataset, "files"),
            "align.chat.loss": (r.Sft, "loss"),
            "recipe.seed": (r.Header, "seed"),
            "first.optimizer": (r.Train, "optimizer"),
            "first.parallel": (r.Train, "parallel"),
            "exam.suites": (r.Evaluate, "suites"),
        }
        for name in self.some(["gentle", "wide"]):
            lines = [
                f"{path} = {self.one([self.maybe_let(self.value(*of)), 'default'])}{self.source()}"
                for path, of in changes.items()
                if self.rarely() or path == "tiny.dim"
            ]
            yield f"variant {name} {{\n" + "\n".join(lines) + f"\n{self.allows()}}}\n"

    # Values

    def value(self, model: type[r.Declaration], name: str) -> str:
        """What an attribute may be.

        Raises: KeyError: nothing is known of it.
        """
        kind = r.attributes(model)[name].kind
        match kind:
            case g.Group():
                return self.group(kind.holds)
            case g.Tagged(many=True):
                first = f"{kind.tags[0]} {self.group(kind.holds)}"
                return self.one([*kind.names, first, f"[{first}, {kind.names[-1]}]"])
            case g.Tagged():
                return self.one(
                    [*kind.names, f"{self.one(list(kind.tags))} {self.group(kind.holds)}"]
                )
            case g.Periodic():
                over = f" over {self.one(LENGTHS)}" if self.often() else ""
                return f"{kind.word} every {self.one(STEPS)}{over}"
            case nk.Consecutive():
                return self.one(["[10..12]", "[3]", "[5, 6..8]"])
            case Recompute():
                return self.one([*kind.choices, "budget 60%", "budget 0%"])
            case k.OneOf():
                return self.one(list(kind.choices))
            case Parts():
                return f"[{', '.join(self.some(list(kind.choices)))}]"
            case ScheduleOf():
                counted = ("pairs", "ratings", "solutions", "prompts", "dialogs")
                return self.schedule(
                    name, records=next((unit for unit in kind.units if unit in counted), "")
                )
            case Label():
                return self.one([kind.example, '"team-7"'])
            case k.Text(many=many):
                several = [f"[{self.one(TEXTS)}, {self.maybe_let(TEXTS[0])}]"] * many
                return self.one([*TEXTS, *several])
            case k.Ref(many=True):
                some = f"[{', '.join(self.some(STAGES) or ['first'])}]"
                return self.one([some, "align.chat[1..3]", "first"])
            case k.Ref():
                return self.one(STAGES + SETS[:1])
            case Weighted():
                return self.one(["right", "{ right 1, rm 0.5 }"])
        if name in COUNTED:
            return self.one(COUNTED[name])
        match kind:
            case k.Name(many=True):
                return self.one(["[web]", "[web, math]"])
            case k.Name():
                return self.one(["tiny", "words", "box", "chat", "llama3"])
            case nk.Whole():
                return self.one(TOKENS[1:] if name == "seq_len" else COUNTS)
            case nk.Real():
                return self.one(REALS)
            case nk.Share():
                return self.one(SHARES)
            case nk.Duration():
                return self.one(["20 s", "10 min", "3 h", "0.5 h"])
        raise KeyError(f"{model.__name__}.{name}")

    def group(self, model: type[r.Declaration]) -> str:
        lines = list(self.attributes(model, in_value=True))
        return f"{{ {', '.join(lines)} }}" if lines else "{ }"

    def schedule(self, name: str, *, records: str) -> str:
        operand, ramps = _OPERANDS[name]

        def value() -> str:
            if name == "batch" and records:
                alone = ["4"] if records != "dialogs" else []  # which may be sequences, too
                return self.one([*alone, f"4 {records}", f"1 {records.removesuffix('s')}"])
            found = self.one(operand)
            return self.maybe_let(found) if "last" not in found else found

        segments = []
        for place in range(self.one([1, 1, 2, 3]), 0, -1):
            bound = f" {self.one(['for', 'until'])} {self.maybe_let(self.one(LENGTHS))}"
            text = value()
            if ramps and self.often():
                over = f" over {self.one(LENGTHS)}" if self.rarely() else ""
                levels = self.levels() if name == "batch" and not records else ""
                start = self.one([text + " ", ""])
                text = f"{start}-> {value()}{self.one(SHAPES)}{levels}{over}"
            segments.append(text + (bound if place > 1 or self.rarely() else ""))
        if self.rarely():
            times = self.maybe_let(self.one(["3 times", "1 time", "2 times"]))
            length = self.maybe_let(self.one(LENGTHS))
            segments = [f"repeat {times} {{ {value()} for {length} then {value()} }}"]
        return " then ".join(segments)

    def levels(self) -> str:
        size = self.maybe_let(self.one(["4 seqs", "64 tokens"]))
        return f" in levels of {size}" if self.rarely() else ""


_MIXTURES = [
    "web",
    "{ web 50%, math 50% }",
    "{ web 2, drafts.pairs 1.5 }",
    "asked[round]",
    "{ ranked[1..round] 1, web 0 }",
    "last",
    "last with { web 1.5x, math 0.5x }",
]
_OPERANDS: dict[str, tuple[list[str], bool]] = {
    "lr": ([*REALS, "0", "last"], True),
    "batch": (["4 seqs", "1 seq", "4Mi tokens", "64 tokens", "last"], True),
    "seq_len": (["16", "8Ki", "128 tokens", "last"], False),
    "data": (_MIXTURES, True),
    "rope_theta": (["10000", "5e5", "last"], False),
    "clip": (["1", "0.5"], True),
    "balance": (["0.001", "0"], False),
    "sequence_balance_loss": (["1e-4", "0"], True),
    "batch_balance_loss": (["0.01", "0"], True),
    "router_z_loss": (["0.001", "0"], True),
    "mtp_loss": (["0.3", "0"], True),
    "weight_decay": (["0.1", "0"], True),
    "parallel": (["{ tensor 8, pipeline 16 }", "{ }", "auto", "{ micro_batch 2 }", "last"], False),
}
"""Attributes that change over time: what they may be, and whether they ramp."""


def any_spec(chance: random.Random) -> str:
    """A spec over the whole language."""
    return Writer(chance).spec()
