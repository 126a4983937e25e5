"""Rejection sampling: what is drawn, kept and written, and what it depends on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from engine_jobs import architecture, run, train_job, weights
from sampling_models import (
    CONTEXT,
    DIALOG,
    draw_job,
    judge,
    judged,
    policy,
    prompts,
    read_lines,
    sample_job,
    save_tokenizer,
)
from test_engine_model import build, logits
from transformers import AutoModelForSequenceClassification

from etude.compiler.lowering.writing import mesh
from etude.compiler.plan.plan import ExportJob
from etude.runtime import sampling
from etude.runtime.data.tokens import tokenizer
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import DataError, RunError
from etude.runtime.peers import Single
from etude.runtime.sampling import draws as draws_of
from etude.runtime.sampling import sample
from etude.runtime.sampling.decoding import Decoder
from etude.runtime.sampling.draw_files import drawn as drawn_so_far
from etude.runtime.sampling.drawing import Request, Settings, all_of
from etude.runtime.sampling.generators import Transformers
from etude.runtime.sampling.noise import draw_seed
from etude.runtime.sampling.noise import drawn as drawn_from
from etude.runtime.sampling.prompts import Protocol

QUESTIONS = ["What is it?", "Say a word that rhymes with tree, then one that does not.", "Why?"]
FILES = ("draws.jsonl", "drafts.jsonl", "pairs.jsonl", "summary.json")


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "model": policy(folder / "model"),
        "judge": judge(folder / "judge"),
        "prompts": prompts(folder / "prompts", QUESTIONS),
    }


def drawn_by(
    roles: dict[str, Path], folder: Path, generator: Any = None, *, kill: Any = None, **changes: Any
) -> Path:
    """The result of a draw job, continued where it was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    job = draw_job(**changes)
    sampling.draw(
        job,
        roles,
        folder,
        root=folder,
        on_event=kill or (lambda event: None),
        done=drawn_so_far(folder, job.draws),
        generate=generator,
    )
    return folder / "result"


def draw(
    roles: dict[str, Path],
    folder: Path,
    generator: Any = None,
    *,
    keep: int = 1,
    context: int = CONTEXT,
    **changes: Any,
) -> Path:
    """What is kept of draws that the judge has scored, where there is one."""
    draws = drawn_by(roles, folder / "draws", generator, **changes)
    given = {"draws": draws, "prompts": roles["prompts"]}
    if "judge" in roles:
        given["judged"] = judged(roles, draws, folder / "judge", context)
    known = {name: changes[name] for name in ("draws", "max_tokens") if name in changes}
    (folder / "sample").mkdir()
    sample(
        sample_job(keep=keep, **known),
        given,
        folder / "sample",
        root=folder,
        on_event=lambda _: None,
    )
    return folder / "sample" / "result"


def contents(result: Path) -> list[bytes]:
    return [(result / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def drawn(roles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(roles, tmp_path_factory.mktemp("drawn"), draws=6, keep=2)


def test_every_draw_is_written_with_seed_and_score(drawn: Path) -> None:
    draws = read_lines(drawn / "draws.jsonl")
    assert [(d["prompt"], d["draw"]) for d in draws] == [(p, d) for p in range(3) for d in range(6)]
    assert [d["seed"] for d in draws] == [draw_seed(11, d["prompt"], d["draw"]) for d in draws]
    assert len({d["text"] for d in draws}) == len({d["score"] for d in draws}) == 18
    for each in draws:
        assert each["messages"][0]["content"] == QUESTIONS[each["prompt"]]
    assert {d["finished"] for d in draws} == {True, False}


def test_the_best_draws_are_kept_and_paired_with_the_worst(drawn: Path) -> None:
    draws = read_lines(drawn / "draws.jsonl")
    drafts, pairs = read_lines(drawn / "drafts.jsonl"), read_lines(drawn / "pairs.jsonl")
    kept, wanted = [], []
    for number in range(3):
        fit = [d for d in draws if d["prompt"] == number and d["finished"] and d["text"].strip()]
        ranked = sorted(fit, key=lambda d: -d["score"])
        kept += ranked[:2]
        if len(ranked) > 1:
            chosen, rejected = ranked[0]["messages"], ranked[-1]["messages"]
            wanted.append({"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]})
    assert len(kept) >= 4
    assert drafts == [{"messages": d["messages"]} for d in kept]
    assert wanted
    assert pairs == wanted
    summary = read_summary(drawn)
    assert summary["draws"] == 18
    assert summary["kept"] == len(kept)
    assert summary["pairs"] == len(wanted)
    assert summary["reward"] == pytest.approx(np.mean([d["score"] for d in draws]))
    assert summary["kept_reward"] == pytest.approx(np.mean([d["score"] for d in kept]))
    assert summary["finished"] == pytest.approx(np.mean([d["finished"] for d in draws]))


def read_summary(result: Path) -> dict[str, Any]:
    import json

    return json.loads((result / "summary.json").read_text())


def test_a_draw_does_not_depend_on_the_batch(
    roles: dict[str, Path], drawn: Path, tmp_path: Path
) -> None:
    one_by_one = Transformers(roles["model"], batch_tokens=1)
    again = draw(roles, tmp_path, one_by_one, draws=6, keep=2)
    before, after = (read_lines(r / "draws.jsonl") for r in (drawn, again))
    assert [d["text"] for d in after] == [d["text"] for d in before]
    assert [d["score"] for d in after] == pytest.approx([d["score"] for d in before], abs=1e-4)


def test_fewer_draws_and_prompts_are_the_same_draws(
    roles: dict[str, Path], drawn: Path, tmp_path: Path
) -> None:
    fewer = {**roles, "prompts": prompts(tmp_path / "prompts", QUESTIONS[:2])}
    after = read_lines(draw(fewer, tmp_path, draws=3) / "draws.jsonl")
    before = {(d["prompt"], d["draw"]): d["text"] for d in read_lines(drawn / "draws.jsonl")}
    assert len(after) == 6
    assert all(before[d["prompt"], d["draw"]] == d["text"] for d in after)


def test_another_seed_draws_something_else(
    roles: dict[str, Path], drawn: Path, tmp_path: Path
) -> None:
    other = draw(roles, tmp_path, draws=6, keep=2, seed=12)
    texts = [{d["text"] for d in read_lines(r / "draws.jsonl")} for r in (drawn, other)]
    assert not texts[0] & texts[1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("torn", [False, True], ids=["between lines", "in a line"])
def test_killed_and_resumed_the_draws_are_the_same(
    torn: bool, roles: dict[str, Path], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draws_of, "SAFE", 5)
    whole = drawn_by(roles, tmp_path / "whole", draws=6)
    folder = tmp_path / "killed"

    def kill(event: dict[str, Any]) -> None:
        if event["draws"] == 10:
            raise Killed

    with pytest.raises(Killed):
        drawn_by(roles, folder, draws=6, kill=kill)
    partial = folder / "draws.partial.jsonl"
    assert len(read_lines(partial)) == 10
    if torn:
        partial.write_bytes(partial.read_bytes()[:-20])
    events: list[dict[str, Any]] = []
    drawn_by(roles, folder, draws=6, kill=events.append)
    assert [e["draws"] for e in events] == ([10, 15, 18] if torn else [15, 18])
    assert [e["prompts"] for e in events][-1] == events[-1]["of"] == 3
    assert (folder / "result" / "draws.jsonl").read_bytes() == (whole / "draws.jsonl").read_bytes()
    texts = [d["text"] for d in read_lines(drawn / "draws.jsonl")]
    assert texts == [d["text"] for d in read_lines(whole / "draws.jsonl")]


def test_all_prompts_are_asked_in_one_stream_and_ranks_that_do_not_lead_write_nothing(
    roles: dict[str, Path], tmp_path: Path
) -> None:
    asked: list[int] = []

    class Backwards:
        context = CONTEXT

        def draw(self, requests: Sequence[Request], settings: Settings) -> Any:
            asked.append(len(requests))
            for number in reversed(range(len(requests))):
                yield number, [65 + number, min(settings.stop)]

        def in_harness(self, load: Any, tokenizer: Any, *, begins: bool) -> Any:
            raise NotImplementedError

    result = drawn_by(roles, tmp_path / "leads", Backwards(), draws=4)
    assert asked == [12]
    assert [d["text"] for d in read_lines(result / "draws.jsonl")] == list("ABCDEFGHIJKL")
    follower, second = tmp_path / "follows", Single()
    second.rank = 1
    follower.mkdir()
    sampling.draw(
        draw_job(resources=mesh("H100", 2)),
        roles,
        follower,
        root=follower,
        on_event=lambda event: None,
        done=[(0, 5)],
        peers=second,
        generate=Backwards(),
    )
    assert asked == [12, 7], "it draws what the leading rank draws"
    assert not list(follower.iterdir())


def test_greedy_sampling_is_what_the_torchtitan_model_says(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Temperature 0 on the export against argmax on the checkpoint, token for token."""
    shape = architecture()
    run(train_job(steps=4, model=shape), inputs, tmp_path / "job")
    result = tmp_path / "job" / "result"
    vocab = save_tokenizer(tmp_path / "tokenizer")
    exported = ExportJob(key="x", id="x", stage="toy", inputs={}, model=shape)
    export(exported, {"model": result, "tokenizer": tmp_path / "tokenizer"}, tmp_path / "export")
    ours = build(shape, weights(result / "state"))

    made = tokenizer.load(tmp_path / "tokenizer" / "tokenizer.json")
    protocol = Protocol(DIALOG, made, tmp_path)
    asked = [protocol.prompt({"messages": [{"role": "user", "content": q}]}, "") for q in QUESTIONS]
    requests = [Request(prompt.tokens, 0, 24) for prompt in asked]
    drawn = all_of(
        Transformers(tmp_path / "export" / "result"),
        requests,
        Settings(0.0, 1.0, protocol.stop),
    )
    for prompt, answer in zip(asked, drawn, strict=True):
        tokens = prompt.tokens.tolist()
        assert len(answer) == 24 or answer[-1] in protocol.stop
        for token in answer:
            row = torch.tensor([tokens])
            best = logits(ours, row, torch.arange(len(tokens))[None])[0, -1]
            assert token == int(best.argmax())
            tokens.append(token)
    assert vocab <= shape.vocab
    assert len({token for answer in drawn for token in answer}) > 3


SHAPES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Qwen3Config": {"head_dim": 8},
    "GptOssConfig": {
        "head_dim": 8,
        "sliding_window": 7,
        "num_local_experts": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "DeepseekV3Config": {
        "kv_lora_rank": 8,
        "q_lora_rank": None,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 2,
        "num_key_value_heads": 4,
    },
}


@pytest.mark.parametrize("kind", SHAPES)
def test_rows_that_come_and_go_draw_what_generate_draws_for_one_prompt(kind: str) -> None:
    """Greedy; with fewer rows than prompts, ends at any place, and windows of 7 in GPT-OSS."""
    shape = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
    }
    torch.manual_seed(2)
    config = getattr(transformers, kind)(**{**shape, **SHAPES[kind]})
    network: Any = transformers.AutoModelForCausalLM.from_config(config).eval()
    random = np.random.default_rng(1)
    lengths = [3, 21, 12, 12, 5, 30, 1, 9]
    prompts = [random.integers(9, 60, n, dtype=np.int32) for n in lengths]
    requests = [
        Request(prompt, 0, 6 + 5 * (number % 4)) for number, prompt in enumerate(prompts * 2)
    ]
    stop = frozenset(range(5))
    drawn = {}
    for batch_tokens in (140, 600):
        decoder = Decoder(network, Settings(0.0, 1.0, stop), batch_tokens)
        drawn[batch_tokens] = dict(decoder.draw(requests))
    for number, request in enumerate(requests):
        wanted = network.generate(
            torch.from_numpy(request.tokens.astype(np.int64))[None],
            max_new_tokens=request.most,
            do_sample=False,
            eos_token_id=sorted(stop),
            pad_token_id=0,
        )[0, len(request.tokens) :].tolist()
        assert drawn[140][number] == drawn[600][number] == wanted
    ends = [answer[-1] in stop for answer in drawn[600].values()]
    assert any(ends)
    assert not all(ends)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.6)])
def test_draws_are_distributed_as_temperature_and_nucleus_say(
    temperature: float, top_p: float
) -> None:
    """χ² of 20,000 first tokens over 12 outcomes. With 11 degrees of freedom it is above 40 once
    in 30,000 samplers that are right."""
    rows = 20_000
    scores = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 1.5
    generators = [torch.Generator().manual_seed(draw_seed(5, 0, i)) for i in range(rows)]
    noisy = drawn_from(scores.expand(rows, -1), generators, temperature=temperature, top_p=top_p)
    drawn = noisy.argmax(-1)
    wanted = (scores.double() / temperature).softmax(-1)
    if top_p < 1:
        kept, total = [], 0.0
        for token in wanted.argsort(descending=True).tolist():
            if total >= top_p:
                break
            kept.append(token)
            total += float(wanted[token])
        assert 1 < len(kept) < 12
        outside = torch.ones(12, dtype=torch.bool)
        outside[kept] = False
        wanted = wanted.masked_fill(outside, 0) / total
    counts = torch.bincount(drawn, minlength=12).double()
    assert counts[wanted == 0].sum() == 0
    there = wanted > 0
    expected = wanted[there] * rows
    chi_square = float(((counts[there] - expected) ** 2 / expected).sum())
    assert chi_square < 40


def test_a_judge_says_what_transformers_says_of_the_last_token(
    roles: dict[str, Path], drawn: Path
) -> None:
    network: Any = AutoModelForSequenceClassification.from_pretrained(roles["judge"]).eval()
    network.config.pad_token_id = None
    made = tokenizer.load(roles["judge"] / "tokenizer.json")
    protocol = Protocol(DIALOG, made, drawn)
    for each in read_lines(drawn / "draws.jsonl"):
        prompt = protocol.prompt({"messages": each["messages"][:-1]}, "")
        tokens = protocol.whole(prompt, each["messages"][-1])
        with torch.no_grad():
            wanted = network(torch.from_numpy(tokens)[None]).logits.item()
        assert each["score"] == pytest.approx(wanted, rel=3e-5, abs=3e-5)


def test_the_judge_reads_what_training_renders(roles: dict[str, Path], tmp_path: Path) -> None:
    made = tokenizer.load(roles["model"] / "tokenizer.json")
    protocol = Protocol(DIALOG, made, tmp_path)
    prompt = protocol.prompt({"messages": [{"role": "user", "content": "Hi"}]}, "")
    whole = protocol.whole(prompt, {"role": "assistant", "content": " Yes. "})
    shown = made.decode(whole.tolist(), skip_special_tokens=False)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert shown == (
        f"<|begin_of_text|>{header.format('user')}Hi<|eot_id|>"
        f"{header.format('assistant')}Yes.<|eot_id|>"
    )
    plain = protocol.prompt({"prompt": "1 + 1 ="}, "")
    whole = protocol.whole(plain, {"role": "assistant", "content": " 2"})
    shown = made.decode(whole.tolist(), skip_special_tokens=False)
    assert shown == "<|begin_of_text|>1 + 1 = 2<|end_of_text|>"


def test_a_message_to_a_tool_is_a_call_or_code(roles: dict[str, Path], tmp_path: Path) -> None:
    made = tokenizer.load(roles["model"] / "tokenizer.json")
    protocol = Protocol(DIALOG, made, tmp_path)

    def answer(text: str) -> dict[str, Any]:
        return protocol.answer(made.encode(text, add_special_tokens=False).ids)[1]

    assert answer("Hello<|eot_id|>") == {"role": "assistant", "content": "Hello"}
    assert answer("<|python_tag|>1 + 1<|eom_id|>") == {
        "role": "assistant",
        "content": "1 + 1",
        "to": "ipython",
    }
    call = answer('{"name": "add", "parameters": {"a": 1}}<|eom_id|>')
    assert call["content"] == ""
    assert call["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


def test_plain_prompts_become_completions(roles: dict[str, Path], tmp_path: Path) -> None:
    plain = {**roles, "prompts": prompts(tmp_path / "p", [{"prompt": "1 + 1 ="}])}
    result = draw(plain, tmp_path, draws=12)
    draws, drafts = (read_lines(result / f"{n}.jsonl") for n in ("draws", "drafts"))
    assert {d["messages"] for d in draws} == {None}
    fit = [d for d in draws if d["finished"] and d["text"].strip()]
    best = max(fit, key=lambda d: d["score"])
    assert drafts == [{"prompt": "1 + 1 =", "completion": best["text"]}]
    (pair,) = read_lines(result / "pairs.jsonl")
    assert pair == {
        "prompt": "1 + 1 =",
        "chosen": best["text"],
        "rejected": min(fit, key=lambda d: d["score"])["text"],
    }


def test_equal_draws_make_no_pair(roles: dict[str, Path], tmp_path: Path) -> None:
    class Parrot:
        context = CONTEXT

        def draw(self, requests: list[Request], settings: Settings) -> Any:
            yield from enumerate([[72, 105, max(settings.stop)] for _ in requests])

    result = draw(roles, tmp_path, Parrot())
    assert len(read_lines(result / "drafts.jsonl")) == 3
    assert (result / "pairs.jsonl").read_text() == ""


def test_without_a_judge_draws_are_kept_in_order(roles: dict[str, Path], tmp_path: Path) -> None:
    alone = {role: path for role, path in roles.items() if role != "judge"}
    result = draw(alone, tmp_path, draws=6, keep=0)
    draws = read_lines(result / "draws.jsonl")
    assert {d["score"] for d in draws} == {None}
    kept = [{"messages": d["messages"]} for d in draws if d["finished"] and d["text"].strip()]
    assert read_lines(result / "drafts.jsonl") == kept
    assert (result / "pairs.jsonl").read_text() == ""
    assert read_summary(result)["reward"] is None


def test_what_cannot_be_sampled_is_said_with_its_place(
    roles: dict[str, Path], tmp_path: Path
) -> None:
    user = {"role": "user", "content": "Hi"}
    cases: list[tuple[Any, str]] = [
        (" ", r"questions.jsonl:2: message 1 \(user\) is empty"),
        ({"messages": []}, "questions.jsonl:2: the prompt is empty"),
        ({"prompt": ""}, "questions.jsonl:2: the prompt is empty"),
        ({"messages": [user, {"role": "assistant", "content": "Yes"}]}, "ends with a message"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "unknown role `wizard`"),
        ("word " * 80, r"questions.jsonl:2: the prompt has \d+ tokens, so the context"),
    ]
    for number, (question, message) in enumerate(cases):
        folder = tmp_path / str(number)
        asked = {**roles, "prompts": prompts(folder / "p", ["Hi", question])}
        with pytest.raises(DataError, match=message) as problem:
            draw(asked, folder)
        assert problem.value.help
    empty = {**roles, "prompts": prompts(tmp_path / "none", [])}
    with pytest.raises(DataError, match="there are no prompts"):
        draw(empty, tmp_path)


def test_an_answer_too_long_for_the_judge_is_never_kept(
    roles: dict[str, Path], tmp_path: Path
) -> None:
    asked = {"prompts": prompts(tmp_path / "p", ["Why?"])}
    result = draw({**roles, **asked}, tmp_path, draws=24, keep=0, context=60)
    draws = read_lines(result / "draws.jsonl")
    kept = [d for d in draws if d["finished"] and d["text"].strip() and d["score"] is not None]
    unjudged = sum(d["score"] is None for d in draws)
    assert 0 < len(kept) < 24 - unjudged < 24
    assert len(read_lines(result / "drafts.jsonl")) == len(kept)
    assert read_summary(result)["unjudged"] == unjudged


def test_a_model_that_never_ends_is_said(roles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none of the 12 draws of drafts\.1") as problem:
        draw(roles, tmp_path, max_tokens=1)
    assert "max_tokens" in problem.value.help
