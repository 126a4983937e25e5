"""Dataset jobs of every form: bad lines with their place, similar ones dropped, awaited files."""

import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import LLAMA3, job, lines, make, tokenized
from test_dialog import say

from etude.compiler.plan.plan import DatasetJob, FilterJob, FilterRule, TokenizerJob
from etude.compiler.plan.verifiers import Verifier
from etude.runtime.data.dialogs.dialog import renderer, special_tokens
from etude.runtime.data.records.shards import Records
from etude.runtime.data.tokens import tokenizer
from etude.runtime.data.tokens.shards import Shards, write_shards
from etude.runtime.errors import DataError, Stopped
from etude.runtime.preparation import prepare

ASK = say("user: Sky?")
GOOD = {"prompt": ASK, "chosen": say("assistant: Blue."), "rejected": say("assistant: Red!")}


@pytest.fixture
def inputs(tmp_path):
    return tokenized(tmp_path)


def test_dialogs_from_every_kind_of_file(inputs, tmp_path):
    dialogs = [{"messages": ASK + say(f"assistant: {n}")} for n in range(3)]
    lines(tmp_path / "d.jsonl", *dialogs)
    pq.write_table(pa.Table.from_pylist(dialogs), tmp_path / "d.parquet")
    source = {"kind": "files", "files": ["d.*"], "fields": {"messages": "messages"}}
    result, events = make(job(source=source), inputs, tmp_path)
    records = Records(result, "train")
    made = tokenizer.load(inputs["tokenizer"] / "tokenizer.json")
    expected = [renderer(LLAMA3, made, tmp_path).render(d["messages"]) for d in dialogs] * 2
    assert [records.record(i).tokens.tolist() for i in range(6)] == [e.ids for e in expected]
    assert [records.record(i).parts.tolist() for i in range(6)] == [e.parts for e in expected]
    assert events[-1]["documents"] == 6
    assert events[-1]["tokens"] == sum(map(len, expected))


@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("preferences", GOOD | {"chosen": None}, "d.jsonl:2: `chosen` is null"),
        ("preferences", GOOD | {"rejected": GOOD["chosen"]}, "d.jsonl:2: .* are equal"),
        ("preferences", GOOD | {"prompt": say("poet: a")}, "d.jsonl:2: .*unknown role `poet`"),
        ("preferences", GOOD | {"prompt": say("user: " + "x" * 99)}, "d.jsonl:2: .* takes .* more"),
        ("preferences", {"prompt": ASK, "chosen": GOOD["chosen"]}, "d.jsonl:2: no ranking"),
        ("prompts", {"prompt": ""}, "d.jsonl:2: the prompt is empty"),
        ("prompts", {"prompt": say("user: " + "x" * 99)}, "d.jsonl:2: the prompt takes"),
        ("dialogs", {"messages": []}, "d.jsonl:2: the dialog has no messages"),
        ("dialogs", {"messages": ASK}, "d.jsonl:2: the dialog ends with a message of `user`"),
    ],
)
def test_bad_lines_have_their_place_and_are_counted(form, record, reason, inputs, tmp_path):
    good = {"messages": ASK + GOOD["chosen"]} if form == "dialogs" else GOOD
    lines(tmp_path / "d.jsonl", good, record, good)
    with pytest.raises(DataError, match=reason):
        make(job(form, longest=90), inputs, tmp_path)
    _, events = make(job(form, longest=90, bad_lines=1), inputs, tmp_path)
    assert [e["event"] for e in events] == ["bad_line", "dataset"]
    assert events[-1]["documents"] == 2


def test_similar_responses_are_dropped_and_counted(inputs, tmp_path):
    near = GOOD | {"rejected": say("assistant: Blue!")}
    three = GOOD | {"edited": say("assistant: Blue?")}
    lines(tmp_path / "d.jsonl", GOOD, near, three)
    result, events = make(job("preferences", drop_similar=0.7), inputs, tmp_path)
    similar = {"limit": 0.7, "responses": 2, "records": 1}
    assert json.loads((result / "records.json").read_text())["similar"] == similar
    assert {"event": "similar", "job": "dataset.d", "dataset": "d", **similar} in events
    records = Records(result, "train")
    assert records.count == 2
    assert len(records.record(1).branches) == 3
    lines(tmp_path / "d.jsonl", near)
    with pytest.raises(DataError, match=r"every record's responses are too similar \(1 dropped\)"):
        make(job("preferences", drop_similar=0.7), inputs, tmp_path)


def test_prompts_are_normalized(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", {"q": "Sky?"}, {"q": ASK, "tools": [{"name": "f"}]})
    source = {"kind": "files", "files": ["d.jsonl"], "fields": {"prompt": "q"}}
    for given in (inputs, {}):
        result, _ = make(job("prompts", source=source), given, tmp_path)
        assert [json.loads(line) for line in (result / "prompts.jsonl").open()] == [
            {"prompt": "Sky?", "place": "d.jsonl:1"},
            {"messages": ASK, "tools": [{"name": "f"}], "place": "d.jsonl:2"},
        ]


RIGHT = {"right": Verifier(kind="math")}
LETTER = {"letter": Verifier(kind="choice", options=["A", "B"])}


@pytest.mark.parametrize(
    ("answer", "kept"), [("22", "22"), (22, "22"), (2.5, "2.5"), (["22", "23"], ["22", "23"])]
)
def test_prompts_keep_the_answers_that_a_verifier_needs(answer, kept, inputs, tmp_path):
    record = {"prompt": "7 + 15?", "solution": answer}
    lines(tmp_path / "d.jsonl", record)
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "d.parquet")
    source = {"kind": "files", "files": ["d.*"], "fields": {"answer": "solution"}}
    result, _ = make(job("prompts", source=source, answers=RIGHT), inputs, tmp_path)
    made = [json.loads(line) for line in (result / "prompts.jsonl").open()]
    assert [each["answer"] for each in made] == [kept, kept]


def test_prompts_have_no_answers_that_nobody_needs(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", {"prompt": "7 + 15?", "answer": "22"})
    result, _ = make(job("prompts"), inputs, tmp_path)
    assert "answer" not in json.loads((result / "prompts.jsonl").read_text())


@pytest.mark.parametrize(
    ("record", "answers", "reason", "help"),
    [
        ({}, RIGHT, "`answer` is missing: `right` must know the right answer", "fields are prompt"),
        ({"solution": "22"}, RIGHT, "`answer` is missing", 'fields = { answer = "solution" }'),
        ({"answer": None}, RIGHT, "`answer` is null", "fields"),
        ({"answer": " "}, RIGHT, "`answer` is empty", "remove the line"),
        ({"answer": []}, RIGHT, "`answer` is empty", "remove the line"),
        ({"answer": {"a": 1}}, RIGHT, "neither a text, a number", "write answers as texts"),
        ({"answer": True}, RIGHT, "neither a text, a number", "write answers as texts"),
        ({"answer": "C"}, LETTER, "`C` is none of the options A, B", "settings of the verifier"),
    ],
)
def test_a_prompt_without_the_answer_that_a_verifier_needs_has_its_place(
    record, answers, reason, help, inputs, tmp_path
):
    good = {"prompt": "?", "answer": "A"}
    lines(tmp_path / "d.jsonl", good, {"prompt": "?", **record})
    with pytest.raises(DataError) as problem:
        make(job("prompts", answers=answers), inputs, tmp_path)
    assert "d.jsonl:2: " in problem.value.message
    assert reason in problem.value.message
    assert help in problem.value.help


def test_records_of_jobs_come_in_their_order(inputs, tmp_path):
    for number in range(11):
        inputs[f"from.{number}"] = folder = tmp_path / f"job{number}"
        folder.mkdir()
        lines(folder / "drafts.jsonl", {"messages": ASK + say(f"assistant: {number:02}")})
    source = {"kind": "job", "file": "drafts.jsonl", "fields": {"messages": "other"}}
    result, _ = make(job(source=source), inputs, tmp_path)
    records = Records(result, "train")
    texts = [bytes(t for t in records.record(i).tokens if t < 256)[-2:] for i in range(11)]
    assert texts == [f"{number:02}".encode() for number in range(11)]


@pytest.mark.parametrize("label", [True, False])
def test_ratings_need_good_answers_and_bad_ones(label, inputs, tmp_path):
    rated = {"prompt": ASK, "completion": GOOD["chosen"], "label": label}
    lines(tmp_path / "d.jsonl", *[rated] * 3)
    with pytest.raises(DataError, match=f"all answers .* have the label {str(label).lower()}"):
        make(job("ratings", holdout="0"), inputs, tmp_path)
    lines(tmp_path / "d.jsonl", *[rated] * 3, rated | {"label": not label})
    result, _ = make(job("ratings", holdout="0"), inputs, tmp_path)
    assert Records(result, "train").good.tolist() == [label] * 3 + [not label]


@pytest.mark.parametrize("label", [True, False])
def test_solutions_need_right_steps_and_wrong_ones(label, inputs, tmp_path):
    said = {"prompt": ASK, "completions": ["a", "b"], "labels": [label, label]}
    lines(tmp_path / "d.jsonl", *[said] * 3)
    asked = job("solutions", holdout="0", separator="\n")
    with pytest.raises(DataError, match=f"all steps .* have the label {str(label).lower()}"):
        make(asked, inputs, tmp_path)
    lines(tmp_path / "d.jsonl", *[said] * 3, said | {"labels": [label, not label]})
    result, _ = make(asked, inputs, tmp_path)
    assert Records(result, "train").step_labels().tolist() == [label] * 7 + [not label]


@pytest.mark.parametrize("form", ["dialogs", "preferences", "ratings", "prompts"])
def test_functions_of_the_library(form, inputs, tmp_path):
    source = {"kind": "sample", "sample": "python_functions", "documents": 12, "seed": 3}
    _, events = make(job(form, source=source), inputs, tmp_path)
    assert events[-1]["documents"] == 12
    with pytest.raises(DataError, match=f"`needles` has no {form}"):
        make(job(form, source=source | {"sample": "needles"}), inputs, tmp_path)


def test_records_are_dealt_out(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", *({"prompt": f"p{n}"} for n in range(8)))
    seen = []
    for deal in ([3, 1, 1], [3, 2, 3]):
        source = {"kind": "files", "files": ["d.jsonl"], "deal": deal}
        result, _ = make(job("prompts", source=source), {}, tmp_path)
        text = (result / "prompts.jsonl").read_text().splitlines()
        seen.append([json.loads(line)["prompt"] for line in text])
    assert seen == [["p0", "p3", "p6"], ["p1", "p2", "p4", "p5", "p7"]]


# Documents: lists of sites


@pytest.mark.parametrize(("keep", "kept"), [(False, ["b", "d", "e"]), (True, ["a", "c"])])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_are_kept_or_dropped_by_their_site(keep, kept, kind, inputs, tmp_path):
    hosts = {
        "a": "https://WWW.Bad.org:80/x?y",
        "b": "http://notbad.org",
        "c": "müller.example.",
        "d": "https://org",
        "e": "http://good.org/bad.org",
    }
    documents = [{"text": text, "url": url} for text, url in hosts.items()]
    lines(tmp_path / "d.jsonl", *documents)
    pq.write_table(pa.Table.from_pylist(documents), tmp_path / "d.parquet")
    (tmp_path / "sites.txt").write_text("# no\n*.bad.org # worst\n\nhttps://Müller.example/a\n")
    sites = [{"field": "url", "file": "sites.txt", "keep": keep}]
    source = {"kind": "files", "files": [f"d.{kind}"], "sites": sites}
    result, events = make(job("documents", source=source, dialog=None), inputs, tmp_path)
    shards = Shards(result, "train")
    texts = [bytes(shards.document(i)[1:-1].tolist()).decode() for i in range(shards.documents)]
    assert texts == kept
    counts = {"kept": len(kept), "dropped": 5 - len(kept)}
    assert {"event": "sites", "job": "dataset.d", "dataset": "d", **counts} in events


def test_lists_of_sites_that_cannot_be(inputs, tmp_path):
    def failure(text: str | None, *documents: dict) -> str:
        (tmp_path / "sites.txt").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "sites.txt").write_text(text)
        lines(tmp_path / "d.jsonl", *documents)
        source = {
            "kind": "files",
            "files": ["d.jsonl"],
            "sites": [{"field": "url", "file": "sites.txt"}],
        }
        with pytest.raises(DataError) as caught:
            make(job("documents", source=source, dialog=None), inputs, tmp_path)
        return caught.value.message

    good = {"text": "a", "url": "a.org"}
    assert "cannot be read" in failure(None, good)
    assert "has no site" in failure("# a.org\n", good)
    assert "sites.txt:2: `two words` is not a site" in failure("a.org\ntwo words\n", good)
    assert failure("a.org", {"text": "a"}).startswith(
        "d.jsonl:1: no field `url`; the fields are text"
    )
    assert "d.jsonl:1: the field `url` has no URL" in failure("a.org", good | {"url": None})
    assert "no documents" in failure("a.org", good)


# Documents: filters by scores


def shards_of(folder, count: int, holdout: str):
    texts = [chr(97 + n % 26) * (n % 7 + 1) for n in range(count)]
    write_shards(
        texts, tokenizer.byte_level(), folder / "data", holdout=Fraction(holdout), seed=0, name="d"
    )
    return [Shards(folder / "data", split) for split in ("train", "heldout")]


def filtering(*rules) -> FilterJob:
    return FilterJob(
        key="k",
        id="filter.d",
        stage=None,
        inputs={},
        name="d",
        seed=5,
        rules=[FilterRule(scores=s, op=o, value=v, keep=k) for s, o, v, k in rules],
    )


def test_a_filter_keeps_a_share_of_what_scores_badly(tmp_path):
    train, heldout = shards_of(tmp_path, 4000, "1/10")
    (tmp_path / "s").mkdir()
    for shards in (train, heldout):
        scores = np.arange(shards.documents, dtype=np.float32) % 4
        scores[::100] = np.nan
        np.save(tmp_path / "s" / f"{shards.split}.npy", scores)
    inputs = {"data": tmp_path / "data", "q": tmp_path / "s"}
    rules = [("q", ">=", 3.0, "1/4"), ("q", "<", 1.0, "0")]
    for work in ("one", "two"):
        prepare.make_filter(filtering(*rules), inputs, tmp_path / work)
    result = tmp_path / "one" / "result"
    for name in ("shards.json", "train-00000.bin", "train-index.npy"):
        assert (result / name).read_bytes() == (tmp_path / "two" / "result" / name).read_bytes()
    for before in (train, heldout):
        scores = np.load(tmp_path / "s" / f"{before.split}.npy")
        after = Shards(result, before.split)
        left = iter([after.document(i).tolist() for i in range(after.documents)])
        bad = 0
        current = next(left, None)
        for number in range(before.documents):
            there = before.document(number).tolist()
            if scores[number] < 1 or (scores[number] >= 3 and there != current):
                continue
            assert there == current
            bad += scores[number] >= 3
            current = next(left, None)
        assert current is None
        expected = (scores >= 3).sum() / 4
        assert abs(bad - expected) < 4 * np.sqrt(expected)
    summary = json.loads((result / "shards.json").read_text())
    assert summary["filtered"]["documents"] == 4000
    assert summary["documents"] == sum(s["documents"] for s in summary["splits"].values())


def test_filters_that_cannot_be(tmp_path):
    shards_of(tmp_path, 20, "0")
    inputs = {"data": tmp_path / "data", "q": tmp_path / "s"}
    (tmp_path / "s").mkdir()

    def failure(scores: np.ndarray | None) -> str:
        if scores is not None:
            np.save(tmp_path / "s" / "train.npy", scores)
            np.save(tmp_path / "s" / "heldout.npy", scores[:0])
        with pytest.raises(DataError) as caught:
            prepare.make_filter(filtering(("q", ">", 0.0, "0")), inputs, tmp_path / "w")
        return caught.value.message

    assert "cannot be read" in failure(None)
    assert "have the shape (19,), but there are 20 documents" in failure(np.zeros(19))
    assert "drops all 20 documents of `d`" in failure(np.ones(20))
    (tmp_path / "s" / "train.npy").write_bytes(b"no")
    assert "damaged" in failure(None)


# Awaited data sets

DRAWS = [
    {
        "prompt": p,
        "draw": d,
        "seed": 0,
        "text": text,
        "score": None,
        "finished": True,
        "messages": [*say(f"user: p{p}"), {"role": "assistant", "content": text}],
    }
    for p, texts in enumerate([["a\u2028", "b", "a\u2028"], ["c", "c"], [" ", ""]])
    for d, text in enumerate(texts)
]


def awaited(pattern: str = "labels/r1.jsonl", **settings) -> DatasetJob:
    source = {"kind": "files", "files": [pattern]}
    return job("preferences", source=source, awaited=True, **settings)


def test_an_awaited_file_stops_the_run_until_it_is_there(inputs, tmp_path):
    wanted = awaited()
    for call in (
        lambda: prepare.job_fingerprint(wanted, tmp_path),
        lambda: make(wanted, inputs, tmp_path),
    ):
        with pytest.raises(Stopped) as caught:
            call()
        assert caught.value.exit_code == 3
        assert caught.value.message == (
            f"the run waits for the data set `d`: put `labels/r1.jsonl` into {tmp_path}"
        )
    (tmp_path / "labels").mkdir()
    lines(tmp_path / "labels" / "r1.jsonl", GOOD)
    before = prepare.job_fingerprint(wanted, tmp_path)
    _, events = make(wanted, inputs, tmp_path)
    assert events[-1]["documents"] == 1
    lines(tmp_path / "labels" / "r1.jsonl", GOOD, GOOD)
    assert prepare.job_fingerprint(wanted, tmp_path) != before


def test_what_is_to_be_labelled_is_written(inputs, tmp_path):
    inputs["candidates"] = tmp_path / "drafts"
    inputs["candidates"].mkdir()
    (inputs["candidates"] / "draws.jsonl").write_text(
        "".join(json.dumps(draw, ensure_ascii=False) + "\n" for draw in DRAWS)
    )
    labels = tmp_path / "run" / "to_label"
    with pytest.raises(Stopped, match=r"the candidates to label are in .*to_label/d.jsonl"):
        prepare.job_fingerprint(awaited(), tmp_path, inputs=inputs, labels=labels)
    path = labels / "d.jsonl"
    empty = {"chosen": None, "rejected": None, "edited": None}
    with path.open() as file:
        written = [json.loads(line) for line in file]
    assert written == [
        {"prompt": say("user: p0"), "responses": ["a\u2028", "b"], **empty},
        {"prompt": say("user: p1"), "responses": ["c"], **empty},
    ]
    # Work in the file is not lost, neither when the run looks again nor with other candidates.
    written[0] |= {"chosen": 1, "rejected": 0}
    written[1] |= {"chosen": "c", "edited": "C"}
    lines(path, *written)
    labelled = path.read_text()
    with pytest.raises(Stopped):
        make(awaited(), inputs, tmp_path, labels=labels)
    assert path.read_text() == labelled
    (inputs["candidates"] / "draws.jsonl").write_text(json.dumps(DRAWS[1]) + "\n")
    with pytest.raises(Stopped):
        make(awaited(), inputs, tmp_path, labels=labels)
    assert len(path.read_text().splitlines()) == 1
    assert (labels / "d.1.jsonl").read_text() == labelled
    # And what was filled in is what is read.
    _, events = make(awaited("run/to_label/d.1.jsonl"), inputs, tmp_path, labels=labels)
    assert events[-1]["documents"] == 2
    with pytest.raises(DataError, match=r"d.jsonl:1: `chosen` is null: the record is not labelled"):
        make(awaited("run/to_label/d.jsonl"), inputs, tmp_path)


def test_candidates_for_plain_prompts_cannot_be_labelled(inputs, tmp_path):
    inputs["candidates"] = tmp_path
    path = tmp_path / "draws.jsonl"
    for line, reason in [(DRAWS[0] | {"messages": None}, "plain prompts"), ({"p": 1}, "damaged")]:
        lines(path, line)
        with pytest.raises(DataError, match=reason):
            make(awaited(), inputs, tmp_path, labels=tmp_path / "to_label")


# Keys and tokenizers


def test_the_fingerprint_holds_templates_and_lists_of_sites(tmp_path):
    lines(tmp_path / "d.jsonl", GOOD)
    sites = [{"field": "url", "file": "s.txt"}]
    wanted = job(
        source={"kind": "files", "files": ["d.jsonl"], "sites": sites},
        dialog={"template": "t.jinja"},
    )
    seen = set()
    for site, template in [("a", "x"), ("b", "x"), ("b", "y")]:
        (tmp_path / "s.txt").write_text(site)
        (tmp_path / "t.jinja").write_text(template)
        seen.add(prepare.job_fingerprint(wanted, tmp_path))
    assert len(seen) == 3
    (tmp_path / "t.jinja").unlink()
    with pytest.raises(DataError, match=r"the chat template .* cannot be read"):
        prepare.job_fingerprint(wanted, tmp_path)


def test_tokenizers_get_the_special_tokens_of_the_dialogs(tmp_path):
    (tmp_path / "t.jinja").write_text("<|hello|>{{ messages }}")
    settings = {"dialogs": [LLAMA3, {"template": "t.jinja"}], "special": ["<|own|>"]}
    expected = ["<|own|>", *special_tokens(LLAMA3), "<|hello|>"]
    data = {
        "d": {"source": {"kind": "sample", "sample": "arithmetic", "documents": 5}, "bad_lines": 0}
    }
    for kind in ({"kind": "bytes"}, {"kind": "train", "vocab": 300}):
        wanted = TokenizerJob(
            key="k",
            id="tokenizer.t",
            stage=None,
            inputs={},
            tokenizer=kind | settings,
            datasets=data,
        )
        prepare.make_tokenizer(wanted, tmp_path / "w", tmp_path, lambda event: None)
        made = tokenizer.load(tmp_path / "w" / "result" / "tokenizer.json")
        added = made.get_added_tokens_decoder()
        assert [added[i].content for i in sorted(added)][2:] == expected
        assert made.get_vocab_size() <= 300
    first = prepare.job_fingerprint(wanted, tmp_path)
    (tmp_path / "t.jinja").write_text("other")
    assert prepare.job_fingerprint(wanted, tmp_path) != first


def test_a_loaded_tokenizer_must_have_the_special_tokens(tmp_path):
    tokenizer.save(tokenizer.byte_level(["<|a|>"]), tmp_path)
    for special, fails in ((["<|a|>"], False), (["<|a|>", "<|b|>"], True)):
        wanted = TokenizerJob(
            key="k",
            id="tokenizer.t",
            stage=None,
            inputs={},
            datasets={},
            tokenizer={"kind": "file", "file": "tokenizer.json", "special": special},
        )
        if fails:
            with pytest.raises(DataError, match=r"lacks special tokens for the recipe: <\|b\|>"):
                prepare.make_tokenizer(wanted, tmp_path / "w", tmp_path, lambda event: None)
        else:
            prepare.make_tokenizer(wanted, tmp_path / "w", tmp_path, lambda event: None)


def test_vocabularies_that_are_too_small_for_the_special_tokens():
    with pytest.raises(DataError, match="256 bytes and 3 special tokens alone are 259"):
        tokenizer.train(["a"], vocab=258, special=["<|x|>"])
    with pytest.raises(DataError, match="special token is empty"):
        tokenizer.byte_level([" "])
