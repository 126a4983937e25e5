"""Codes of texts, blocks, the graph and schedules: a spec that has each, its place (marked ¦ here),
and its words."""

from pathlib import Path

import pytest
from specs import HEAD, after, check, only, place, stage
from wrong_specs import (
    CIRCLE,
    DEEP,
    DPO,
    EVALUATE,
    NODES,
    POST,
    REWARD,
    SAMPLE,
    SFT,
    assert_found,
    entry,
    gate,
    mark,
    model,
    placed,
    post,
    post_stage,
    rounds,
    then,
    train,
    words,
)

from etude.spec.findings.diagnostics import Report
from etude.spec.load import load

EXAMPLES: list[tuple[str, str, str]] = [
    ("E101", train(lr="1e-3 ¦5"), "is not expected here"),
    ("E106", train(lr="¦)"), "there is no open bracket for this `)`"),
    ("E105", train(data="{ web 70% ¦math 30% }"), "write `web 70%, math 30%`"),
    ("E105", train(body="¦clip 2.0"), "write `clip = 2.0`"),
    ("E106", train(data="¦{ web 70%, math 30%"), "write `}` after `30%`"),
    ("E106", train(lr="¦[ 1e-3"), "write `]` after `1e-3`"),
    ("E101", HEAD + "stage first: train {\n  lr ¦=\n  steps = 3\n}", "a value is missing here"),
    ("E107", entry("let a = 'text'").replace("'text'", "¦'text'"), "double quotes"),
    ("E106", HEAD + "stage first: train ¦{\n  steps = 3\n", "write `}` after `3`"),
    ("E306", entry("dataset ¦every { sample = arithmetic }"), "such as `every_dataset`"),
    ("E101", train(data="{ use ¦50%, web 50% }"), "`use` includes another file"),
    ("E101", train(batch="¦= 4 seqs"), "one `=` is enough"),
    ("E101", train(lr="1e-3 untill ¦5 steps"), "did you mean `until`?"),
    ("E102", entry('dataset x { files = ¦"a.txt }'), "no closing quote"),
    ("E103", HEAD + DEEP, "at most 64 deep"),
    ("E104", entry(r'dataset x { files = ¦"a\qb" }'), r"`\q` is not an escape"),
    ("E104", entry(r'dataset x { files = ¦"\ud800" }'), "half of a character"),
    ("E111", train(seq_len="¦8K"), "write `8k` for 8,000 or `8Ki` for 8,192"),
    ("E111", train(steps="¦8steps"), "a unit follows its number after a space: `8 steps`"),
    ("E112", train(steps="¦1e41"), "out of range"),
    ("E112", train(steps="¦1e" + "9" * 5000), "at most 40 digits"),
    ("E121", '¦use "other.etude"\n' + entry(""), "cannot `use` files"),
    ("E206", train(lr="¦1%"), "write `0.01`"),
    ("E201", train(lr="¦fast"), "must be a number, not a name"),
    ("E201", train(model='¦"tiny"'), "must be a name, not a text"),
    ("E201", train(average="¦3"), "polyak every 1 step"),
    (
        "E201",
        post(REWARD) + post_stage(SAMPLE, judge="¦[rm, other]"),
        "`stage jury: ensemble { of = [rm, other] }`, and write `judge = jury`",
    ),
    ("E201", post(REWARD) + post_stage(SAMPLE, judge="¦[rm]"), "write `rm`, without brackets"),
    (
        "E201",
        entry('model other { family = ¦"gpt-oss" }'),
        "write `gpt_oss`: names have small letters",
    ),
    ("E201", train(model="¦[tiny, other]"), "write one of them, such as `tiny`"),
    (
        "E201",
        post(SAMPLE) + post_stage(SFT, from_="¦[first, other]"),
        "the mean of their weights is one: `stage mean: average { of = [first, other] }`",
    ),
    ("E201", post(SAMPLE) + post_stage(SFT, from_="¦[first]"), "write `first`, without brackets"),
    ("E201", train(gate="¦3"), "gate seq_len { require needle >= 90% }"),
    ("E202", train(precision="¦fp7"), "not a precision"),
    ("E202", train(precision="fp8 { except = [¦outpt] }"), "did you mean `output`?"),
    ("E202", train(recompute="¦budget"), "write `budget 60%`"),
    ("E208", train(recompute="budget ¦160%"), "at most 100%"),
    ("E202", train(optimizer="¦sgd"), "not an optimizer"),
    ("E203", train(lr="1e-3 until ¦5% steps then 1e-4"), "both a `%` and a unit"),
    ("E204", train(steps="10 ¦setps"), "did you mean `steps`?"),
    ("E205", train(batch="¦64"), "write `64 seqs`"),
    ("E205", then(data="last with { web ¦2 }"), "write `2x`"),
    ("E205", gate("require needle >= ¦1"), "write `1%`"),
    (
        "E206",
        train(steps="¦10 tokens"),
        "`10 tokens` is in tokens, but this is measured in `steps`",
    ),
    ("E206", entry("expect { first.steps = ¦100 tokens }"), "measured in `steps`"),
    ("E207", train(steps="¦1.5 steps"), "the nearest are 1 and 2"),
    ("E208", train(steps="¦0"), "at least 1"),
    ("E208", train(clip="¦0"), "above 0"),
    ("E208", train(rope_theta="¦0"), "above 0"),
    ("E208", train(optimizer="adamw { betas = ¦[0.9] }"), "two betas"),
    ("E208", train(optimizer="adamw { betas = [0.9, ¦1] }"), "below 1"),
    ("E208", train(lr="1e-3 for ¦0 steps then 1e-4"), "more than 0"),
    ("E208", entry("cluster big { nodes = ¦1e9, cpus = 1 }"), "at most 1,000,000"),
    ("E208", HEAD.replace("seed = 1", "seed = ¦1e20") + stage(), "at most"),
    ("E208", HEAD + stage() + "stage mean: average { of = ¦[] }", "this list is empty"),
    ("E209", then(data="¦first with { web 2x }"), "only `last with { name 1.5x }`"),
    ("E210", train(data="¦{}"), "name at least one source"),
    ("E210", train(data="¦{ web 0 }"), "add up to 0"),
    ("E211", train(data="¦{ web 50%, math 50 }"), "both percentages and plain weights"),
    ("E212", train(data="{ ¦web }"), "not a name and a share"),
    ("E212", train(data="{ ¦web = 50% }"), "not a name and a share"),
    (
        "E212",
        train(parallel="{ pipeline 2, ¦schedule = zero_bubble_v }"),
        "no `=` here: write `schedule zero_bubble_v`",
    ),
    ("E212", train(parallel="{ ¦zero_bubble_v }"), "write `schedule zero_bubble_v`"),
    ("E212", train(parallel="{ ¦tensor }"), "write `tensor 8`"),
    ("E213", train(data="{ web 50%, ¦web 50% }"), "named twice"),
    ("E214", train(data="¦{ web 50%, math 47% }"), "add up to 97%, not 100%"),
    ("E214", train(data="¦{ web 50%, math 47% }"), "raise one of them by 3%"),
    ("E214", train(data="¦{ web 50.5%, math 50% }"), "lower one of them by 0.5%"),
    ("E215", train(parallel="{ ¦tensors 2 }"), "did you mean `tensor`?"),
    ("E216", train(lr="¦1e-3 then 1e-4"), "`for …` or `until …`"),
    ("E301", entry("¦seed = 3"), "outside blocks"),
    ("E302", entry("¦modle big { layers = 2 }"), "did you mean `model`?"),
    ("E303", entry("dataset ¦web { sample = arithmetic }"), "declared twice"),
    ("E303", entry("let a = 1\nlet ¦a = 2"), "two values"),
    ("E304", "¦" + HEAD.split("\n", 1)[1] + stage(), "exactly one `recipe` block"),
    ("E304", entry("¦recipe other { seed = 2 }"), "exactly one `recipe` block"),
    ("E305", entry("¦dataset { sample = arithmetic }"), "dataset NAME { … }"),
    ("E305", entry("¦stage second { steps = 10 }"), "no kind"),
    ("E305", entry("¦stage second train { steps = 10 }"), "write `stage second: train {`"),
    ("E305", entry("dataset a ¦b { sample = arithmetic }"), "one name"),
    ("E305", entry("dataset a: ¦train { sample = arithmetic }"), "only stages have a kind"),
    ("E306", entry("dataset ¦Web { sample = arithmetic }"), "lower case"),
    ("E306", entry("dataset ¦_web { sample = arithmetic }"), "lower case"),
    ("E306", entry("let ¦last = 3"), "choose another name, such as `last_value`"),
    ("E307", entry("stage second: ¦trian { steps = 10 }"), "did you mean `train`?"),
    ("E308", train("¦step = 10"), "did you mean `steps`?"),
    ("E308", train(optimizer="adamw { ¦beta = [0.9, 0.95] }"), "did you mean `betas`?"),
    ("E309", train("¦lr = 1e-4"), "`lr` is given twice"),
    (
        "E309",
        gate(
            "require needle >= 1%\n otherwise extend 1 step at most 2\n"
            "¦otherwise extend 1 step at most 2"
        ),
        "given twice",
    ),
    (
        "E309",
        gate("require needle >= 1%\nneedle = { depths = 2 }\n¦needle = { depths = 3 }"),
        "given twice",
    ),
    ("E310", train("¦optimizer.eps = 1e-8"), "an attribute has a single name"),
    ("E310", train("clip = 1 within ¦1%"), "only claims"),
    ("E311", train("¦web 50%"), "not an attribute"),
    ("E311", gate("¦lr = 3"), "does not belong in a gate"),
    ("E312", train("¦gate lr { require needle >= 90% }"), "write `gate seq_len { … }`"),
    ("E313", then("¦gate seq_len { }"), "require needle >= 90%"),
    ("E314", gate("require ¦speed >= 90%"), "cannot be measured"),
    ("E314", gate("require ¦loss <= 3"), "`loss(short)` or `loss(DATASET)`"),
    ("E314", gate("require loss(short) <= 90% of ¦begin"), "write `of start`"),
    ("E315", gate("require needle >= ¦101%"), "at most 100%"),
    ("E316", entry('expect { ¦parameters = "8B" }'), "not a claim"),
    ("E317", "let ¦a = b\nlet b = a\n" + train(lr="a"), "`a` is defined by itself"),
    ("E318", entry("¦stage mean: average { }"), "needs `of`"),
    ("E401", "¦" + HEAD, "no stages"),
    ("E402", train(model="¦tiney"), "did you mean `tiny`?"),
    ("E402", train(model="¦web"), "`web` is a dataset; a model is meant here"),
    (
        "E402",
        entry("cluster box { cpus = 1 }").replace("data = web", "data = ¦box"),
        "`box` is a cluster; a dataset is meant here",
    ),
    ("E402", post(SFT, dialog="¦talk"), "`talk` is a dataset; a dialog is meant here"),
    ("E402", train(data="¦{ web 50%, maths 50% }"), "did you mean `math`?"),
    ("E402", gate("¦require loss(wbe) <= 3"), "did you mean `web`?"),
    ("E402", HEAD + stage() + "stage mean: average { of = ¦[first, secnod] }", "no stage `secnod`"),
    (
        "E403",
        HEAD + CIRCLE.replace("from = b", "from = ¦b").replace("{ ¦from", "{ from"),
        "a → b → a",
    ),
    ("E404", then(model="tiny", from_="¦first"), "remove one of them"),
    ("E405", HEAD + "¦stage first: train { steps = 1 }", "write `model = …`"),
    ("E405", HEAD + "¦stage first: evaluate { loss = [web] }", "write `from = …`"),
    (
        "E406",
        HEAD + stage() + "stage report: evaluate { loss = [web] }\n" + after(from_="¦report"),
        "write `first`",
    ),
    ("E407", train(tokens="64k", steps="¦10"), "exactly one length, not tokens and steps"),
    ("E407", HEAD + "¦" + stage(steps=None), "exactly one length"),
    ("E408", HEAD + "¦" + stage(lr=None), "needs `lr`"),
    ("E409", train(lr="¦last -> 0"), "`last` has no value"),
    ("E409", train("optimizer = ¦last"), "`last` has no value"),
    ("E409", train("gate seq_len { ¦require loss(short) <= 100% of start }"), "`of start`"),
    (
        "E410",
        HEAD + stage(average="polyak every 1 step") + after("second", "optimizer = ¦last"),
        "start with a fresh one",
    ),
    (
        "E411",
        HEAD
        + "tokenizer a { bytes }\ntokenizer b { bytes }\n"
        + stage(tokenizer="a")
        + after(tokenizer="¦b"),
        "remove `tokenizer`",
    ),
    (
        "E412",
        HEAD + "tokenizer a { bytes }\ntokenizer b { bytes }\n¦" + stage(),
        "write `tokenizer = a`",
    ),
    ("E412", HEAD + NODES + NODES.replace("big", "huge") + "¦" + stage(), "write `cluster = big`"),
    ("E413", HEAD + "¦cluster big { nodes = 2 }\n" + stage(), "needs either `gpus` or `cpus`"),
    ("E414", model("family = ¦llama33"), "did you mean `llama3`?"),
    ("E415", model('size = ¦"9B"'), "there is 1B, 3B, 8B, 70B, 405B"),
    (
        "E416",
        HEAD + "tokenizer t { train = { on [web], vocab 301 } }\n" + stage(),
        "write `vocab = 301`",
    ),
    (
        "E416",
        HEAD.replace("vocab = 300", "vocab = ¦257") + "tokenizer t { bytes }\n" + stage(),
        "write `vocab = 258`",
    ),
    ("E417", model("layers = 2, dim = 64"), "needs `heads`, `ffn`, `vocab`"),
    (
        "E417",
        model("layers = 2, dim = 64, heads = 4, ffn = 128"),
        "at least as many as the tokenizer has tokens; published models of llama3 have 128256 (1B",
    ),
    (
        "E418",
        model("layers = 2, dim = 60, heads = ¦8, ffn = 8, vocab = 300"),
        "is not a multiple of `heads`",
    ),
    (
        "E418",
        model("layers = 2, dim = 64, heads = 4, kv_heads = ¦3, ffn = 8, vocab = 300"),
        "not a multiple of `kv_heads` 3",
    ),
    (
        "E420",
        HEAD
        + "model other { layers = 3, dim = 64, heads = 4, ffn = 8, vocab = 300 }\n"
        + stage()
        + stage("second", model="other")
        + "stage mean: average { of = ¦[first, second] }",
        "different shapes",
    ),
    (
        "E421",
        HEAD + stage() + "stage mean: average { of = [first], weights = ¦[1, 2] }",
        "needs 1 weight,",
    ),
    ("E422", HEAD + stage() + "¦stage report: evaluate { }", "evaluates nothing"),
    (
        "E423",
        HEAD + "¦dataset code { }\n" + stage(),
        "exactly one of `files`, `hub`, `sample` and `tokenized`",
    ),
    (
        "E424",
        HEAD + "¦tokenizer t { }\n" + stage(),
        "exactly one of `file`, `hub`, `bytes`, `train`",
    ),
    ("E425", HEAD + "tokenizer t { train = { on [web], vocab ¦200 } }\n" + stage(), "at least 258"),
    ("E431", placed("¦{ expert 2 }"), "no experts"),
    ("E432", placed("¦{ tensor 3 }"), "the nearest that fits is tensor 2"),
    ("E432", placed("¦{ replicate 2, shard 4 }"), "is not 16, the number of data-parallel ranks"),
    ("E433", placed("¦{ tensor 8 }"), "the nearest that divides it is 4"),
    ("E433", placed("¦{ pipeline 4 }"), "more than the model's 2 layers"),
    ("E441", train(lr="1e-3 for 100 steps then ¦1e-4"), "can never be reached"),
    ("E441", train(seq_len="16 for 200 steps then ¦32"), "can never be reached"),
    ("E442", train(batch="¦40 tokens"), "32 (2 sequences) and 48 (3 sequences)"),
    (
        "E443",
        HEAD.replace("python_docs }", "python_docs\n keep 50% where quality.loss > 4.0 }")
        + stage(data="math")
        + "stage quality: score { from = first, data = [web] }\n"
        + stage("second", epochs="¦2", from_="first", model=None),
        "declare `tokens = …` in the dataset `web`, or write the length in `steps`",
    ),
    ("E325", train(optimizer="adamw { momentum = ¦0.9 }"), "`betas` has the decay rates"),
    ("E325", train(optimizer="adam { ns_steps = ¦5 }"), "`optimizer = muon { ns_steps = … }`"),
    ("E325", train(optimizer="muon { d = ¦1 }"), "`optimizer = adafactor { d = … }`"),
    ("E325", train(optimizer="adafactor { betas = ¦[0.9, 0.99] }"), "`beta2_decay` says how fast"),
    ("E325", train(optimizer="lion { eps = ¦1e-8 }"), "`optimizer = adamw { eps = … }`"),
    ("E325", train(optimizer="lion { momentum = ¦0.9 }"), "`betas` has its share in an update"),
    ("E325", train(optimizer="adafactor { eps = ¦1e-8 }"), "`eps1` bounds"),
    ("E208", train(optimizer="adafactor { eps1 = ¦1e-30 }"), "at least 1e-18"),
    ("E438", placed("{ tensor 2 }", optimizer="muon"), "with `tensor 2`"),
    ("E444", train(lr="¦-> 1e-3 for 10 steps then 1e-3"), "write the starting value"),
    ("E445", then(data="¦last with { math 2x }"), "the mixture has web"),
    ("E445", then(data="¦last with { web 0x }"), "all shares of this mixture are 0"),
    ("E446", train(seq_len="¦16 -> 32"), "changes in steps, not in ramps"),
    ("E446", train(batch="¦4 seqs -> 8 seqs exponential"), "no exponential ramps"),
    ("E447", train(lr="¦1e-3 for 10 steps"), "remove the bound of the last segment"),
    ("E447", train(batch="¦4 seqs until 50%"), "remove the bound of the last segment"),
    ("E446", train(batch="¦4 seqs -> 8 seqs inverse_sqrt"), "no inverse_sqrt ramps"),
    ("E448", train(lr="¦1e-3 -> 0 exponential"), "end it at a small value"),
    ("E448", train(lr="¦0 -> 1e-3 inverse"), "neither begins nor ends at 0"),
    ("E448", train(lr="¦1e-3 -> 0 inverse_sqrt"), "`-> 1e-7 inverse_sqrt`"),
    ("E449", train(lr="¦0"), "is 0 throughout"),
    ("E451", placed("{ tensor 2 }", batch="¦12 seqs"), "8 sequences (128 tokens) and 16"),
    ("E452", placed("{ context 4 }", seq_len="¦520"), "the nearest is 512"),
    ("E461", entry("expect { ¦first.token = 5 }"), "did you mean `first.tokens`?"),
    ("E462", entry("expect { first.tokens = ¦6.5k within 1% }"), "the claim allows 1.00%"),
    ("E206", rounds("", 2).replace("align 2", "align ¦2 steps"), "remove the unit"),
    ("E207", rounds("", 2).replace("align 2", "align ¦1.5"), "the nearest are 1 and 2"),
    ("E208", rounds("", 2).replace("align 2", "align ¦0"), "at least 1"),
    ("E208", rounds("", 2).replace("align 2", "align ¦1e9"), "at most 1,000"),
    ("E208", post(DPO, label_smoothing="¦0.5"), "below 0.5"),
    ("E208", post(SAMPLE, top_p="¦0"), "above 0"),
    ("E208", post(EVALUATE, suites="{ math ¦[] }"), "this list is empty"),
    ("E212", post(EVALUATE, suites="{ ¦math 5 }"), 'write `math ["gsm8k"]`'),
    ("E213", post(EVALUATE, suites='{ math ["a"], ¦math ["b"] }'), "named twice"),
    ("E303", rounds("") + "rounds ¦align 2 { }", "declared twice"),
    ("E305", HEAD + stage() + "¦rounds 2 { }", "this `rounds` block has no name"),
    ("E305", rounds("").replace("align 2", "align 2: ¦train"), "only stages have a kind"),
    ("E305", rounds("¦stage 2 { }"), "write `stage NAME: KIND { … }`"),
    ("E306", rounds("").replace("stage chat", "stage ¦round"), "such as `round_stage`"),
    ("E311", post(SFT, "¦drop similar > 90%"), "in a reward or dpo stage"),
    ("E311", post(DPO, "¦drop similar < 90%"), "write `drop similar > 90%`"),
    (
        "E311",
        post(SFT, "¦keep 10% where quality.loss > 4"),
        "`keep` and `drop` belong in a dataset",
    ),
    (
        "E311",
        post(body="dataset x { sample = arithmetic, ¦retain 1% where a.loss > 4 }"),
        "`keep 10% where …`",
    ),
    (
        "E311",
        post(body='dataset x { sample = arithmetic, keep ¦1% where url in "a.txt" }'),
        "a share is not allowed here",
    ),
    ("E309", post(DPO, "drop similar > 90%\n¦drop similar > 80%"), "given twice"),
    ("E318", post(SAMPLE.replace("stage", "¦stage"), max_tokens=None), "needs `max_tokens`"),
    ("E319", rounds("").replace("rounds align 2", "¦rounds align"), "write `rounds align 6 { … }`"),
    ("E320", HEAD + stage() + "¦rounds align 2 { }", "have no stages"),
    ("E320", rounds("¦steps = 3"), "declare everything else outside"),
    ("E320", rounds("¦dataset x { sample = arithmetic }"), "rounds can contain only stages"),
    (
        "E321",
        post(body="dataset x { sample = arithmetic, keep 1% where ¦q.accuracy > 4 }"),
        "`quality.loss > 4.0`",
    ),
    ("E402", post(SFT, data="¦drafts.foo"), "no dataset `drafts.foo`"),
    ("E402", post(SFT, dialog="¦chta"), "did you mean `chatml`?"),
    ("E402", rounds("", from_="¦previous.chta or first"), "did you mean `chat`?"),
    ("E402", rounds("", from_="¦previous.chat or frist"), "did you mean `first`?"),
    ("E402", rounds("") + after(from_="¦align.chta"), "did you mean `align.chat`?"),
    (
        "E403",
        rounds("¦stage x: average { of = [y] }\nstage y: average { of = [x] }"),
        "align.1.x → align.1.y → align.1.x",
    ),
    ("E406", post(SAMPLE) + post_stage(SFT, from_="¦drafts"), "write `first`"),
    ("E407", post(REWARD, steps=None, tokens="¦5k"), "`steps = …` or `epochs = …`"),
    ("E408", post(REWARD.replace("stage", "¦stage"), batch=None), "needs `batch`"),
    ("E410", post(SFT, "optimizer = ¦last"), "belong to a different loss"),
    (
        "E411",
        HEAD
        + POST
        + "tokenizer a { bytes }\ntokenizer b { bytes }\n"
        + stage(tokenizer="a")
        + stage("other", tokenizer="b")
        + post_stage(REWARD, from_="other")
        + post_stage(SAMPLE, judge="¦rm"),
        "a different tokenizer from the model that it judges",
    ),
    (
        "E412",
        post("¦" + SFT, body="dialog a { protocol = llama3 }\ndialog b { protocol = chatml }"),
        "write `dialog = a`",
    ),
    ("E420", post(REWARD, body="stage mean: average { of = ¦[first, rm] }"), "different shapes"),
    (
        "E420",
        HEAD
        + POST
        + "model other { layers = 3, dim = 64, heads = 4, ffn = 8, vocab = 300 }\n"
        + stage("big", model="other")
        + stage()
        + post_stage(DPO, reference="¦big"),
        "another shape",
    ),
    (
        "E443",
        post(SFT, steps=None, epochs="¦2", data="drafts")
        + "stage drafts: sample { from = first, prompts = asks, draws = 2, max_tokens = 8 }\n",
        "write the length in `steps`",
    ),
    ("E445", post(SFT, data="¦last with { talk 2x }"), "the mixture has web"),
]


@pytest.mark.parametrize(("code", "text", "phrase"), EXAMPLES)
def test_an_error_has_its_code_its_place_and_a_way_out(code: str, text: str, phrase: str) -> None:
    assert_found(code, text, phrase)


FILES: list[tuple[str, str | bytes | None, str]] = [
    ("E122", '\nuse ¦"../other.etude"', "only files inside its own folder"),
    ("E122", 'use ¦"/etc/passwd"', "only files inside its own folder"),
    ("E123", 'use ¦"spec.etude"', "spec.etude → spec.etude"),
    ("E124", 'use ¦"missing.etude"', "there is no file"),
    ("E124", 'use ¦"."', "is a directory"),
    ("E124", r'use ¦"a\u0000b"', "cannot be found"),
    ("E124", None, "there is no file"),
    ("E125", b" " * 1_000_001, "larger than 1 MB"),
    ("E126", b"recipe r {\n title = \xff }", "is not UTF-8 text (line 2)"),
]


@pytest.mark.parametrize(("code", "content", "phrase"), FILES)
def test_an_error_about_files(
    code: str, content: str | bytes | None, phrase: str, tmp_path: Path
) -> None:
    file, where = tmp_path / "spec.etude", None
    if isinstance(content, str):
        text, where = mark(content)
        content = f"{text}\n{HEAD}".encode()
    if content is not None:
        file.write_bytes(content)
    report = Report()
    assert load(file, report) is None
    found = next(d for d in report.ordered() if d.code == code)
    assert phrase in words(found)
    assert where is None or place(found) == where


def test_findings_come_in_the_order_of_the_file() -> None:
    found = check(train("gate lr { }", steps="1.5", lr="fast", data="{ web 97% }"))
    assert [d.code for d in found] == ["E207", "E201", "E214", "E312"]


def test_what_is_wrong_because_of_a_let_is_shown_where_it_stands_and_where_it_was_given() -> None:
    spec = "let rate = 1e-3 steps\n" + train(lr="rate")
    found = only(check(spec))
    line = spec[: spec.index("lr = ")].count("\n") + 1
    assert (found.code, place(found)) == ("E206", (line, 8))
    ((span, message),) = found.notes
    assert (span.line, span.column, message) == (1, 5, "`rate` is given here")
