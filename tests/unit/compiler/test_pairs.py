"""Two independent errors of one block show in one run, and with one fixed the other stays.

Errors are attributes of a block, in place of those that it has when it is right; all pairs of a
block that change different attributes are tried, as text and in one process.
"""

from itertools import combinations
from typing import NamedTuple

import pytest
from specs import check

Attributes = dict[str, str | None]


class Fault(NamedTuple):
    """Attributes with an error, and its code; `hides` are codes that it keeps back."""

    code: str
    given: Attributes
    hides: tuple[str, ...] = ()


class Kind(NamedTuple):
    """A block that is right, where its spec has `{}`, and what can be wrong with it."""

    spec: str
    head: str
    right: Attributes
    faults: list[Fault]


HEAD = """recipe test { seed = 1 }
tokenizer letters { bytes }
cluster box { cpus = 1 }
dataset web { sample = python_docs }
dataset math { sample = arithmetic }
dataset human { sample = python_functions, kind = dialogs }
dataset ranked { sample = python_functions, kind = preferences }
dataset asked { sample = python_functions, kind = prompts }
"""
MODEL = """model tiny {
  layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300, context = 128
  weights = "tiny"
}
"""
FIRST = """stage first: train {
  model = tiny, steps = 100, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
  checkpoint every 50 steps
}
"""
JUDGE = """stage judge: reward {
  from = first, steps = 10, batch = 4 pairs, lr = 1e-4, data = ranked
}
"""
ENDS = "1e-3 for 10 steps then 1e-4 for 95 steps then 1e-5"
"""A schedule whose last segment begins after 105 steps."""
UNKNOWN = Fault("E308", {"nonsense": "1"})
TYPES = [
    UNKNOWN,
    Fault("E201", {"clip": '"x"'}),
    Fault("E208", {"checkpoint": "every 0 steps"}),
    Fault("E206", {"steps": "100 docs"}, ("E441", "E447", "E455", "E457")),
    Fault("E202", {"precision": "fp7"}),
    Fault("E202", {"optimizer": "sophia"}),
    Fault("E308", {"optimizer": "adamw { beta = 1 }"}),
]
"""What the binder finds in any stage that trains."""
TRAIN = Kind(
    HEAD + MODEL + "{}",
    "stage pretrain: train",
    {
        "model": "tiny",
        "steps": "100",
        "seq_len": "16",
        "batch": "4 seqs",
        "lr": "1e-3",
        "data": "web",
        "tokenizer": "letters",
        "cluster": "box",
    },
    [
        *TYPES,
        Fault("E402", {"data": "nowhere"}),
        Fault("E402", {"data": "{ web 50%, nowhere 50% }"}),
        Fault("E511", {"data": "human"}),
        Fault("E214", {"data": "{ web 50%, math 40% }"}),
        Fault("E402", {"tokenizer": "nowhere"}),
        Fault("E402", {"cluster": "nowhere"}),
        Fault("E441", {"lr": ENDS}),
        Fault("E447", {"lr": "1e-3 for 50 steps"}),
        Fault("E455", {"lr": "1e-3 for 50 steps then 1e-4 until 40 steps then 1e-5"}),
        Fault("E441", {"data": "web for 200 steps then math"}),
        Fault("E448", {"lr": "1e-3 -> 0 exponential"}),
        Fault("E449", {"lr": "0"}),
        Fault("E446", {"seq_len": "16 -> 32"}),
        Fault("E457", {"average": "polyak every 1 step over 200 steps"}),
    ],
)
SFT = Kind(
    HEAD + MODEL + FIRST + "{}",
    "stage chat: sft",
    {
        "from": "first",
        "steps": "100",
        "seq_len": "16",
        "batch": "4 seqs",
        "lr": "1e-3",
        "data": "human",
        "dialog": "llama3",
    },
    [
        *TYPES,
        Fault("E402", {"from": "nowhere"}),
        Fault("E402", {"data": "nowhere"}),
        Fault("E511", {"data": "web"}),
        Fault("E402", {"dialog": "nowhere"}),
        Fault("E402", {"cluster": "nowhere"}),
        Fault("E441", {"lr": ENDS}),
        Fault("E447", {"lr": "1e-3 for 50 steps"}),
        Fault("E202", {"loss": "user"}),
        Fault("E518", {"seq_len": "16 for 50 steps then 32"}),
    ],
)
DPO = Kind(
    HEAD + MODEL + FIRST + "{}",
    "stage align: dpo",
    {
        "from": "first",
        "reference": "first",
        "steps": "100",
        "batch": "4 pairs",
        "lr": "1e-3",
        "data": "ranked",
        "seq_len": "16",
    },
    [
        *TYPES,
        Fault("E402", {"from": "nowhere"}),
        Fault("E402", {"reference": "nowhere"}),
        Fault("E402", {"data": "nowhere"}),
        Fault("E511", {"data": "human"}),
        Fault("E402", {"dialog": "nowhere"}),
        Fault("E206", {"batch": "4 seqs"}),
        Fault("E441", {"lr": ENDS}),
        Fault("E208", {"beta": "0"}),
        Fault("E208", {"label_smoothing": "0.7"}),
    ],
)
EVALUATE = Kind(
    HEAD + MODEL + FIRST + JUDGE + "{}",
    "stage exam: evaluate",
    {"from": "first", "loss": "[web]", "judge": "judge", "prompts": "asked", "max_tokens": "8"},
    [
        UNKNOWN,
        Fault("E402", {"from": "nowhere"}),
        Fault("E402", {"loss": "[nowhere]"}),
        Fault("E511", {"loss": "[ranked]"}),
        Fault("E402", {"judge": "nowhere"}),
        Fault("E513", {"judge": "first"}),
        Fault("E402", {"prompts": "nowhere"}),
        Fault("E511", {"prompts": "human"}),
        Fault("E206", {"max_tokens": "8 steps"}),
        Fault("E201", {"temperature": "hot"}),
        Fault("E402", {"dialog": "nowhere"}),
        Fault("E308", {"needle": "{ width = 2 }"}),
    ],
)
SAMPLE = Kind(
    HEAD + MODEL + FIRST + JUDGE + "{}",
    "stage drafts: sample",
    {"from": "first", "prompts": "asked", "max_tokens": "8", "judge": "judge", "draws": "4"},
    [
        UNKNOWN,
        Fault("E402", {"from": "nowhere"}),
        Fault("E402", {"judge": "nowhere"}),
        Fault("E402", {"prompts": "nowhere"}),
        Fault("E206", {"max_tokens": "8 steps"}),
        Fault("E201", {"temperature": '"x"'}),
        Fault("E402", {"dialog": "nowhere"}),
        Fault("E521", {"keep": "5"}),
    ],
)
MODELS = Kind(
    HEAD + "{}" + FIRST,
    "model tiny",
    {"layers": "2", "dim": "64", "heads": "4", "kv_heads": "2", "ffn": "128", "vocab": "300"},
    [
        UNKNOWN,
        Fault("E201", {"tied": '"x"'}),
        Fault("E208", {"norm_eps": "0"}),
        Fault("E414", {"family": "llama9"}, ("E415", "E418")),
        Fault("E418", {"heads": "5", "kv_heads": "5"}),
        Fault("E426", {"revision": '"main"'}),
        Fault("E426", {"context": "128"}),
    ],
)
DATASET = Kind(
    HEAD + MODEL + FIRST + "stage quality: score { from = first, data = [texts] }\n{}",
    "dataset texts",
    {"files": '"corpus/*.jsonl"'},
    [
        UNKNOWN,
        Fault("E206", {"tokens": "1B steps"}),
        Fault("E202", {"long": "cut"}),
        Fault("E535", {"long": "drop"}),
        Fault("E423", {"sample": "python_docs"}),
        Fault("E493", {"files": '"corpus/*.pdf"'}),
        Fault("E308", {"fields": '{ txt = "x" }'}),
        Fault("E208", {"holdout": "200%"}),
    ],
)
CLUSTER = Kind(
    HEAD.replace("cluster box { cpus = 1 }\n", "") + MODEL + "{}" + FIRST,
    "cluster box",
    {"cpus": "1"},
    [
        UNKNOWN,
        Fault("E208", {"nodes": "0"}),
        Fault("E208", {"price": "0"}),
        Fault("E413", {"gpus": '8 of "H100"'}),
    ],
)
KINDS = [TRAIN, SFT, DPO, EVALUATE, SAMPLE, MODELS, DATASET, CLUSTER]


def spec(kind: Kind, *faults: Fault) -> str:
    given = dict(kind.right)
    for fault in faults:
        given |= fault.given
    lines = [
        f"  {name} {value}" if value.startswith("every ") else f"  {name} = {value}"
        for name, value in given.items()
        if value is not None
    ]
    block = f"{kind.head} {{\n" + "\n".join(lines) + "\n}\n"
    return kind.spec.replace("{}", block)


def errors(kind: Kind, *faults: Fault) -> list[str]:
    return sorted(d.code for d in check(spec(kind, *faults)) if d.severity == "error")


def title(kind: Kind) -> str:
    return kind.head


@pytest.mark.parametrize("kind", KINDS, ids=title)
def test_a_block_that_is_right_has_no_errors_and_each_fault_is_one(kind: Kind) -> None:
    assert errors(kind) == []
    assert [(f, errors(kind, f)) for f in kind.faults if errors(kind, f) != [f.code]] == []


@pytest.mark.parametrize("kind", KINDS, ids=title)
def test_both_of_two_errors_show(kind: Kind) -> None:
    wrong = []
    for one, other in combinations(kind.faults, 2):
        if one.given.keys() & other.given.keys():
            continue
        kept = [f for f, by in ((one, other), (other, one)) if f.code not in by.hides]
        found = errors(kind, one, other)
        if found != sorted(f.code for f in kept):
            wrong.append((one, other, found))
    assert wrong == []
