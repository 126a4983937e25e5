"""Codes of rounds, dialogs, preferences and measures: a spec that has each, its place (as ¦)."""

import pytest
from specs import HEAD, after, stage
from wrong_specs import (
    DPO,
    EVALUATE,
    NODES,
    POST,
    REWARD,
    SAMPLE,
    SFT,
    assert_found,
    post,
    post_stage,
    rounds,
)

EXAMPLES: list[tuple[str, str, str]] = [
    ("E501", post(SFT, data="¦talk[0]"), "`talk[2]` elsewhere"),
    ("E501", post(SFT, data="¦talk[round]"), "in rounds"),
    ("E501", rounds("", data="¦talk[2..1]"), "is not valid here"),
    ("E501", rounds("", data="¦talk[1, 2]"), "is not valid here"),
    ("E501", post(SFT, from_="¦first[2]"), "is not repeated"),
    ("E502", post(SFT, from_="¦previous.sft or first"), "write `first`"),
    ("E502", rounds("", from_="¦previous.chat"), "`previous.chat or first`"),
    ("E502", rounds("", from_="¦first or first"), "`first` alone"),
    ("E503", rounds("") + after(from_="¦align.chat[1..2]"), "write `align.chat`"),
    ("E504", rounds("", data="¦talk[7]"), "`align` has 2"),
    ("E504", rounds("") + after(from_="¦align.chat[7]"), "it has 2"),
    ("E504", post(SFT, data="¦talk[7]"), "write `talk`"),
    ("E505", post(REWARD, data="¦daily"), "`daily[round]` or `daily[1..round]`"),
    (
        "E505",
        post(
            body='dataset x { files = "{round}.txt" }\n'
            "tokenizer t { train = { on ¦[x], vocab 300 } }"
        ),
        "has a part for each round",
    ),
    (
        "E511",
        post(SFT, data="¦web"),
        "`talk` has dialogs; or write `kind = dialogs` in the dataset `web`, if it contains",
    ),
    ("E511", rounds("", data="¦web"), "dialogs are needed here"),
    ("E511", post(SAMPLE) + post_stage(SFT, data="¦drafts.pairs"), "`drafts` are dialogs"),
    ("E511", post(SAMPLE, prompts="¦web"), "prompts are needed here"),
    ("E511", post(body="stage q: score { data = ¦[talk] }"), "documents are needed here"),
    (
        "E511",
        post(body="tokenizer t { train = { on ¦[talk], vocab 300 } }"),
        "documents are needed",
    ),
    ("E512", post(REWARD) + post_stage(SAMPLE, from_="¦rm"), "cannot generate any"),
    ("E512", post(REWARD) + post_stage(SFT, from_="¦rm"), "cannot generate any"),
    ("E512", post(REWARD) + post_stage(DPO, reference="¦rm"), "cannot generate any"),
    ("E512", post(EVALUATE, accuracy="¦[ranked]"), "write `loss = [DATASET]`"),
    (
        "E512",
        post(REWARD) + post_stage(EVALUATE, from_="rm", loss="¦[web]"),
        "write `accuracy = [DATASET]`",
    ),
    ("E513", post(SAMPLE, judge="¦first"), "of kind `reward`"),
    (
        "E513",
        post(EVALUATE, judge="¦first", prompts="asks", max_tokens="8"),
        "is not a reward model",
    ),
    (
        "E514",
        post(body='dataset x { files = "a", kind = dialogs\n¦drop where url in "b" }'),
        "only documents can be filtered",
    ),
    (
        "E515",
        post(body="dataset x { sample = arithmetic, keep 1% where ¦first.loss > 4 }"),
        "of kind `score`",
    ),
    (
        "E515",
        post(
            body="dataset x { sample = arithmetic, keep 1% where ¦q.loss > 4 }\n"
            "stage q: score { data = [web] }"
        ),
        "add `x` to the `data` of `q`",
    ),
    ("E516", post(body="dataset x { sample = arithmetic, ¦awaited }"), "the file to wait for"),
    (
        "E516",
        post(SAMPLE, body='dataset x { files = "x", kind = preferences, candidates = ¦drafts }'),
        "write `awaited`",
    ),
    (
        "E516",
        post(body='dataset x { files = "x", kind = preferences, awaited, candidates = ¦first }'),
        "of kind `sample`",
    ),
    (
        "E516",
        post(SAMPLE, body='dataset x { files = "x", awaited, candidates = ¦drafts }'),
        "write `kind = preferences`",
    ),
    ("E517", post(body="¦dialog a { }"), "exactly one of `protocol`, `template`, `header`"),
    ("E517", post(body='dialog a { template = "a", header = ¦"{role}" }'), "exactly one of"),
    ("E517", post(body='¦dialog a { header = "{role}" }'), "`a` has no end of turn"),
    (
        "E517",
        post(body='dialog a { header = ¦"a", end_of_turn = "b", roles = [assistant] }'),
        "must contain the role",
    ),
    (
        "E517",
        post(body='dialog a { header = "{role}", end_of_turn = "b", roles = ¦[user] }'),
        "add `assistant`",
    ),
    (
        "E517",
        post(body='dialog a { header = "{role}", end_of_turn = ¦"", roles = [assistant] }'),
        "the end of turn is empty",
    ),
    (
        "E517",
        post(body='dialog a { protocol = llama3, end_of_turn = ¦"b" }'),
        "can be used only with `header`",
    ),
    ("E518", post(SFT, seq_len="16 for 2 steps then ¦32"), "one sequence length"),
    (
        "E519",
        HEAD
        + POST
        + NODES
        + stage(batch="16 seqs")
        + post_stage(REWARD, parallel="¦{ context 2 }", batch="16 pairs"),
        "cannot use context parallelism",
    ),
    (
        "E519",
        HEAD
        + POST
        + NODES
        + stage(parallel="{ pipeline 2 }", batch="16 seqs")
        + "¦"
        + post_stage(REWARD, batch="16 pairs"),
        "which it would inherit",
    ),
    ("E520", post(body="¦stage x: best { of = [first] }"), "exactly one measure"),
    (
        "E520",
        post(body="stage x: best { of = [first], loss = [web], needle = ¦{ depths = 2 } }"),
        "exactly one measure",
    ),
    ("E520", post(body="stage x: best { of = [first], loss = ¦[web, math] }"), "one measure"),
    ("E521", post(SAMPLE, keep="¦best"), "needs a `judge` to rank"),
    ("E521", post(REWARD) + post_stage(SAMPLE, judge="rm", keep="¦5"), "write `draws = 5` or more"),
    ("E522", post(EVALUATE, loss="[web]", prompts="¦asks"), "write `judge = …` too"),
    ("E522", post(EVALUATE, loss="[web]", tasks='¦"tasks"'), "write `suites = …` too"),
    (
        "E522",
        post(REWARD) + post_stage(EVALUATE, judge="¦rm", max_tokens="8"),
        "write `prompts = …`",
    ),
    (
        "E523",
        post(body="dataset x { sample = arithmetic, kind = ¦preferences }"),
        "write `sample = python_functions`",
    ),
]


@pytest.mark.parametrize(("code", "text", "phrase"), EXAMPLES)
def test_an_error_has_its_code_its_place_and_a_way_out(code: str, text: str, phrase: str) -> None:
    assert_found(code, text, phrase)
