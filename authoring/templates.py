"""The templates of `etude new`: each makes the text of a spec from answers."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..spec.quantity import counted
from . import writing as w
from .model_parts import Model, batch_of_all, header, pretrained
from .tree import ConfigError

Answers = dict[str, Any]
"""Question → answer; also `name`, and `after`: the base spec's file, or None."""

_LARGE = ("gpus", "gpu", "data", "tokenizer")


class Names(dict[str, str]):
    """Names in a spec; a name that the base spec has already gets replaced."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.taken = taken

    def __missing__(self, wish: str) -> str:
        return w.name(wish, self.taken)


class Template(NamedTuple):
    """A starting point for a spec.

    Attributes:
        line: one line about it, for a list.
        asks: the names of its questions.
        write: makes the blocks from the answers and the model to continue from, if any.
    """

    line: str
    asks: tuple[str, ...]
    write: Callable[[Answers, Model | None], list[str]]
    goes_on: bool = False


def text_of(template: str, answers: Answers, base: Model | None) -> str:
    """The text of a spec.

    Args:
        answers: a value for each question of the template, `name` and `title`; with `base`, also
            `after`, its file.

    Raises: ConfigError: the answers are inconsistent.
    """
    made = TEMPLATES[template]
    name = answers["name"]
    file = f"{name}.etude"
    top = (
        f"# {made.line}\n#\n"
        f"#     etude check {file}     is anything wrong?\n"
        f"#     etude plan  {file}     what would happen?\n"
        f"#     etude run   {file}     let it happen"
    )
    head = f"use {w.quoted(answers['after'])}" if base else header(name, answers["title"])
    names = Names(base.names if base else frozenset())
    return w.laid_out("\n\n".join([top, head, *made.write(answers | {"names": names}, base)]))


def asked(template: str, answers: Answers, *, after: bool) -> list[str]:
    """The questions that apply, given the answers so far."""
    left_out: set[str] = set()
    if after:
        left_out |= {"size", "tokens", *_LARGE}
    elif answers.get("size") == "tiny":
        left_out |= set(_LARGE)
        if TEMPLATES[template].goes_on:
            left_out |= {"dialogs", "preferences", "prompts", "length"}
    return [name for name in TEMPLATES[template].asks if name not in left_out]


def _quickstart(answers: Answers, base: Model | None) -> list[str]:
    blocks, _ = pretrained(answers | {"size": "tiny"}, last=True)
    return [
        *blocks,
        "# What was learned, on documents that no stage has seen.\n"
        + w.block("stage before: evaluate", ("from", "pretrain"), ("loss", "[corpus]")),
        w.block("stage after: evaluate", ("from", "anneal"), ("loss", "[corpus]")),
    ]


def _pretrain(answers: Answers, base: Model | None) -> list[str]:
    blocks, _ = pretrained(answers, last=True)
    return [*blocks, w.block("stage report: evaluate", ("loss", "[corpus]"))]


def _long_context(answers: Answers, base: Model | None) -> list[str]:
    blocks, model = ([], base) if base else pretrained(answers, last=False)
    assert model
    lengths = _doubled(model, answers)
    contexts = [_context(model, length) for length in lengths]
    batch = batch_of_all(model, lengths, contexts)
    share = 100 // len(lengths)
    steps = 100 if model.small else 1000
    # Every length is trained for the same number of steps: a whole number of batches.
    bounds = [f"{w.count(n)} for {share}%" for n in lengths[:-1]] + [w.count(lengths[-1])]
    placements = [_placement(model, context) for context in contexts]
    timed = [f"{p} for {share}%" for p in placements[:-1]] + placements[-1:]
    theta = 8_000_000 if max(lengths) > 131_072 else 500_000
    raised = not model.small and model.rope_theta < theta
    n = answers["names"]
    rate = model.rate  # if the model was annealed, the rate before that
    stage = w.block(
        f"stage {n['long_context']}: train",
        ("from", model.stage),
        ("tokens", w.plain(batch * steps * len(lengths))),
        ("seq_len", w.schedule(bounds)),
        ("batch", f"{w.plain(batch)} tokens"),
        ("lr", f"0 -> {w.real(rate)} for 2% then {w.real(rate)}") if rate else None,
        ("rope_theta", w.plain(theta)) if raised else None,
        ("parallel", w.schedule(timed)) if any(c > 1 for c in contexts) else None,
        "gate seq_len {",
        "  require loss(short) <= 105% of start    # nothing is lost on short texts",
        f"  otherwise extend {w.plain(batch * steps // 10)} tokens at most 2 times",
        "}",
    )
    exam = w.block(
        f"stage {n['lengths']}: evaluate",
        ("from", n["anneal_long"]),
        ("needle", f"{{ lengths = [{', '.join(w.count(n) for n in lengths)}] }}"),
    )
    anneal = w.block(
        f"stage {n['anneal_long']}: train",
        ("from", n["long_context"]),
        ("tokens", w.plain(batch * max(steps // 2, 20))),
        ("lr", "last -> 0"),
    )
    return [
        *blocks,
        "# Twice as long, and twice again; a gate after each length.\n" + stage,
        anneal,
        "# A secret in a long text: is it found?\n" + exam,
    ]


def _doubled(model: Model, answers: Answers) -> list[int]:
    """The lengths of a long-context stage: each twice the previous one.

    Raises: ConfigError: the model's sequences are already as long.
    """
    if "length" in answers:
        goal = int(answers["length"].removesuffix("Ki")) * 1024
    else:
        goal = 4 * model.length
    lengths = []
    length = model.length
    while length < goal:
        length *= 2
        lengths.append(min(length, goal))
    if not lengths:
        raise ConfigError(
            f"the model has sequences of {counted(model.length, 'tokens')} already",
            help="choose a longer --length",
        )
    return lengths


def _context(model: Model, length: int) -> int:
    """Ranks that share a sequence, so that each has about as much of it as before."""
    context = 1
    while (
        not model.small
        and context * model.length < length
        and model.ranks % (model.tensor * model.pipeline * context * 2) == 0
    ):
        context *= 2
    return context


def _placement(model: Model, context: int) -> str:
    degrees = {"tensor": model.tensor, "context": context, "pipeline": model.pipeline}
    shown = [f"{name} {n}" for name, n in degrees.items() if n > 1]
    return f"{{ {', '.join(shown)} }}" if shown else "{ }"


def _human(answers: Answers, small: bool, *kinds: str) -> list[str]:
    """Data sets of dialogs, preferences and prompts."""
    n = answers["names"]
    names = {"dialogs": n["human"], "preferences": n["labeled"], "prompts": n["asked"]}
    blocks = []
    many = str(max(96, 2 * answers.get("rounds", 1)))  # dealt out to the rounds
    for kind in kinds:
        source = (
            [("sample", "python_functions"), ("documents", many if kind == "prompts" else "3000")]
            if small
            else [("files", w.quoted(answers[kind]))]
        )
        lines = [*source, ("kind", kind), ("bad_lines", "500")]
        blocks.append(
            w.block(f"dataset {names[kind]}", *(lines if kind != "prompts" else lines[:-1]))
        )
    return blocks


def _post(answers: Answers, base: Model | None) -> tuple[list[str], Model, dict[str, str], bool]:
    """What stages after pre-training share: the model, its blocks, their sizes."""
    blocks, model = ([], base) if base else pretrained(answers, last=True)
    assert model
    data = ("dialogs", "preferences", "prompts")
    sampled = model.small and not any(answers.get(kind) for kind in data)
    ranks = model.ranks // model.tensor
    fitting = {
        key: w.plain(-(-n // ranks) * ranks)
        for key, n in {
            "dialogs": 8 if model.small else 64,
            "pairs": 16 if model.small else 128,
        }.items()
    }
    fitting["length"] = w.count(max(model.length, 512) if model.small else model.length)
    return blocks, model, fitting, sampled


def _aside(model: Model) -> w.Line:
    """Stages on preferences have no pipeline and no context parallelism."""
    if model.pipeline * model.context == 1:
        return None  # as before
    return ("parallel", f"{{ tensor {model.tensor} }}" if model.tensor > 1 else "{ }")


def _chat(answers: Answers, model: Model) -> tuple[list[str], w.Line]:
    """The block of the chat protocol, and the line that names it in stages that need it."""
    if not model.dialogs:
        return [
            "# Headers, end of turn, tools: its special tokens have to be the tokenizer's.\n"
            + w.block(f"dialog {answers['names']['chat']}", ("protocol", "llama3"))
        ], None
    return [], ("dialog", model.dialogs[0]) if len(model.dialogs) > 1 else None


def _sft(
    name: str, data: str, steps: str, model: Model, fitting: dict[str, str], speaks: w.Line
) -> str:
    """A stage on dialogs, from the model that post-training starts with."""
    return w.block(
        f"stage {name}: sft",
        ("from", model.stage),
        ("data", data),
        ("steps", steps),
        ("seq_len", fitting["length"]),
        ("batch", f"{fitting['dialogs']} seqs"),
        (
            "lr",
            "0 -> 1e-3 for 10% then -> 1e-4" if model.small else "0 -> 1e-5 for 3% then -> 1e-6",
        ),
        speaks,
        _aside(model),
    )


def _dpo(name: str, start: str, data: str, model: Model, fitting: dict[str, str]) -> str:
    """A stage on preferences, from a stage on dialogs."""
    small = model.small
    return w.block(
        f"stage {name}: dpo",
        ("from", start),
        ("data", data),
        ("steps", "40" if small else "500"),
        ("batch", f"{fitting['pairs']} pairs"),
        ("lr", "0 -> 2e-4 for 10% then 2e-4" if small else "0 -> 1e-6 for 5% then 1e-6"),
        ("beta", "0.1"),
        ("nll", "0.2"),
        ("mask", "formatting"),
    )


def _align(answers: Answers, base: Model | None) -> list[str]:
    blocks, model, fitting, sampled = _post(answers, base)
    n = answers["names"]
    chat, speaks = _chat(answers, model)
    sft = _sft(n["sft"], n["human"], "60" if model.small else "2000", model, fitting, speaks)
    dpo = _dpo(n["dpo"], n["sft"], n["labeled"], model, fitting)
    return [
        *blocks,
        *_human(answers, sampled, "dialogs", "preferences"),
        *chat,
        "# Dialogs are packed into rows; only the assistant's tokens are learned.\n" + sft,
        "# Preferred answers against others, kept near the model that it starts from.\n" + dpo,
    ]


def _rounds(answers: Answers, base: Model | None) -> list[str]:
    blocks, model, fitting, sampled = _post(answers, base)
    n = answers["names"]
    chat, speaks = _chat(answers, model)
    stages = _round(n, model, fitting, speaks)
    inner = "\n\n".join(stages).replace("\n", "\n  ").replace("\n  \n", "\n\n")
    rounds = n["align"]
    exam = w.block(
        f"stage {n['exam']}: evaluate",
        ("from", f"{rounds}.{n['mean']}"),
        ("judge", f"{rounds}.{n['rm']}"),
        ("prompts", n["exam"]),
        ("max_tokens", "96" if model.small else "2Ki"),
        speaks,
    )
    source = (
        [("sample", "python_functions"), ("skip", "3000"), ("documents", "192")]
        if sampled
        else [("files", w.quoted("exam.jsonl"))]
    )
    unseen = w.block(f"dataset {n['exam']}", *source, ("kind", "prompts"))
    return [
        *blocks,
        *_human(answers, sampled, "dialogs", "preferences", "prompts"),
        "# Prompts that no round answers.\n" + unseen,
        *chat,
        "# Each round works with what it has from the one before.\n"
        f"rounds {rounds} {answers['rounds']} {{\n  {inner}\n}}",
        "# The last round's model, judged by its reward model.\n" + exam,
    ]


def _round(n: Names, model: Model, fitting: dict[str, str], speaks: w.Line) -> list[str]:
    """The stages of a round.

    Args:
        n: the names of stages and data sets.
        fitting: sizes, as `_post` returns them.
        speaks: the line that names the chat protocol in stages that need it.
    """
    small, start = model.small, model.stage
    rm, drafts, sft, dpo, mean = (n[x] for x in ("rm", "drafts", "sft", "dpo", "mean"))
    return [
        "# What people prefer, all that was collected so far.\n"
        + w.block(
            f"stage {rm}: reward",
            ("from", f"previous.{rm} or {start}"),
            ("data", f"{n['labeled']}[1..round]"),
            ("steps", "64" if small else "1000"),
            ("seq_len", fitting["length"]),
            ("batch", f"{fitting['pairs']} pairs"),
            ("lr", "0 -> 1e-3 for 10% then -> 1e-4" if small else "0 -> 1e-5 for 5% then -> 1e-6"),
            speaks,
            _aside(model),
            "drop similar > 95%",
        ),
        "# The best model so far answers, and the reward model picks the best of its answers.\n"
        + w.block(
            f"stage {drafts}: sample",
            ("from", f"previous.{mean} or {start}"),
            ("prompts", f"{n['asked']}[round]"),
            ("draws", "4" if small else "16"),
            ("max_tokens", "96" if small else "2Ki"),
            ("judge", rm),
            ("keep", "best"),
            speaks,
        ),
        "# Always from the same start: the data gets better, not the habit older.\n"
        + _sft(
            sft,
            f"{{ {drafts} 40%, {n['human']} 60% }}",
            "60" if small else "4000",
            model,
            fitting,
            speaks,
        ),
        _dpo(dpo, sft, f"{{ {n['labeled']}[round] 50%, {drafts}.pairs 50% }}", model, fitting),
        "# A mean of this round's model and the last one's.\n"
        + w.block(f"stage {mean}: average", ("of", f"[{dpo}, previous.{dpo} or {dpo}]")),
    ]


_POST = ("size", "tokens", *_LARGE)
TEMPLATES: dict[str, Template] = {
    "quickstart": Template(
        "A tiny model, trained on a laptop in a minute, with nothing to download",
        ("tokens",),
        _quickstart,
    ),
    "pretrain": Template(
        "Pre-training of a published size on a cluster, with annealing",
        ("size", "tokens", *_LARGE),
        _pretrain,
    ),
    "long_context": Template(
        "Increasing sequence lengths with gates, for your model or one that is trained first",
        ("size", "tokens", *_LARGE, "length"),
        _long_context,
        True,
    ),
    "align": Template(
        "SFT and DPO, for your model or one that is trained first",
        (*_POST, "dialogs", "preferences"),
        _align,
        True,
    ),
    "post_training": Template(
        "Rounds as in Llama 3: reward model, rejection sampling, SFT, DPO, averaging",
        (*_POST, "dialogs", "preferences", "prompts", "rounds"),
        _rounds,
        True,
    ),
}
