"""Mistakes and data that were reported, as people wrote them: what they are told, or get.

Reports about weights are tested where weights are written: a configuration that ties two matrices
and RoPE scaled by 32 in `test_weights_as_published.py`, and in `test_engine_weights.py` as
transformers reads them; an end of text of its own name in `test_tokenizer_files.py`.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from specs import check, place, plan

import etude
from etude.authoring.draft import Options
from etude.authoring.imports import Imported, import_config
from etude.compiler.plan.plan import ExportJob
from etude.spec.findings.diagnostics import Diagnostic

HEAD = """recipe r { title = "x", seed = 1 }
model m { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 512 }
dataset web { files = "web.jsonl" }
dataset code { files = "code.jsonl" }
"""
STAGE = "stage s: train { model = m, steps = 10000, seq_len = 128, batch = 8 seqs, lr = 1e-3,"
RATE = "stage s: train { model = m, steps = 10000, seq_len = 128, batch = 8 seqs, data = web,"
LENGTH = "stage s: train { model = m, steps = 10000, batch = 8 seqs, lr = 1e-3, data = web,"


def only(text: str) -> Diagnostic:
    """The one error of a spec; there are no other errors, and no warnings about what it breaks."""
    (found,) = (each for each in check(text) if each.severity == "error")
    return found


MISTAKES = {
    "a missing comma": (
        STAGE + "\n  data = { web 85% code 15% } }",
        ("E105", (6, 20)),
        "a comma is missing before `code`",
        "write `web 85%, code 15%`",
    ),
    "a mixture that stays open": (
        STAGE + "\n  data = { web 85%, code 15%\n}",
        ("E106", (6, 10)),
        "this `{` is not closed",
        "write `}` after `15%`",
    ),
    "a statement as an attribute": (
        STAGE + " data = web\n  checkpoint = checkpoint every 1000 steps }",
        ("E323", (6, 3)),
        "`checkpoint` is a statement and has no `=`",
        "write `checkpoint every 1000 steps`",
    ),
    "a statement's rest as a value": (
        STAGE + " data = web\n  checkpoint = every 1000 steps }",
        ("E323", (6, 3)),
        "`checkpoint` is a statement and has no `=`",
        "write `checkpoint every 1000 steps`",
    ),
    "a function": (
        RATE + "\n  lr = cosine(1e-3) }",
        ("E107", (6, 8)),
        "specs have no functions",
        "a shape follows its ramp: `1e-3 -> 0 cosine`",
    ),
    "a shape without a ramp": (
        RATE + "\n  lr = 1e-3 cosine }",
        ("E109", (6, 13)),
        "`cosine` is the shape of a ramp, but there is no ramp here",
        "write the end of the ramp: `1e-3 -> 0 cosine`",
    ),
    "an unknown shape": (
        RATE + "\n  lr = 1e-3 -> 4e-5 rsqrt }",
        ("E109", (6, 21)),
        "`rsqrt` is not the shape of a ramp",
        "did you mean `sqrt`?",
    ),
    "a length without a unit": (
        RATE + "\n  lr = 0 -> 1e-3 for 10 then 1e-3 }",
        ("E205", (6, 22)),
        "`10` needs a unit",
        "write `10 steps`",
    ),
    "a negative number": (
        STAGE + " data = web\n  clip = -1 }",
        ("E108", (6, 10)),
        "`-1` is negative, but numbers in a spec cannot be",
        "remove `clip` for a norm of 1",
    ),
    "an adapter": (
        STAGE + " data = web\n  lora = { rank = 16 } }",
        ("E308", (6, 3)),
        "a stage has no attribute `lora`",
        "it is `adapter` here",
    ),
    "a folder in object storage": (
        STAGE + ' data = web\n  checkpoint_folder = "s3://bucket/run" }',
        ("E308", (6, 3)),
        "a stage has no attribute `checkpoint_folder`",
        "`--folder s3://BUCKET/PATH`",
    ),
    "a rate that ends before it begins": (
        RATE + "\n  lr = 0 -> 4e-4 for 2000 steps then 4e-4 until 1000 steps then -> 4e-5 cosine }",
        ("E455", (6, 43)),
        "it begins after 2,000 steps, and `until 1000 steps` is after 1,000 steps",
        "`for 1000 steps` would end it after 3,000 steps",
    ),
    "a length that ends before it begins": (
        LENGTH + "\n  seq_len = 128 until 20% then 256 until 10% then 512 }",
        ("E455", (6, 36)),
        "it begins after 2,000 steps, and `until 10%` is after 1,000 steps",
        "`for 10%` would end it after 3,000 steps",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_at_its_place_with_a_way_out(mistake: str) -> None:
    text, where, message, help = MISTAKES[mistake]
    found = only(HEAD + text)
    assert (found.code, place(found)) == where
    assert message in found.message
    assert help in found.help


SHARED = """base_model: org/Other-0.5B
datasets:
  - path: talk.json
    type: chat_template
sequence_len: 1024
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 2
learning_rate: 2e-5
lr_scheduler: cosine
warmup_steps: 0.1
optimizer: adamw_torch_fused
"""
EXPERTS = """checkpoints: {checkpoint_interval: 10, checkpoints_path: checkpoints}
general: {project: moe, run: moe, seed: 42}
model:
  dtype: bfloat16
  model_config:
    is_llamoe_config: true
    hidden_size: 256
    intermediate_size: 512
    num_hidden_layers: 4
    num_attention_heads: 8
    num_key_value_heads: 8
    hidden_act: silu
    max_position_embeddings: 1024
    moe_num_experts: 4
    num_experts_per_tok: 1
    rms_norm_eps: 1.0e-05
    tie_word_embeddings: false
    vocab_size: 32000
optimizer:
  clip_grad: 1.0
  weight_decay: 0.01
  adam_beta1: 0.9
  adam_beta2: 0.98
  adam_eps: 1.0e-09
  learning_rate_scheduler: {learning_rate: 0.0003, lr_decay_style: cosine, lr_decay_steps: 90,
    lr_warmup_steps: 10, lr_warmup_style: linear, min_decay_lr: 0.00001}
parallelism: {dp: 2, pp: 1, tp: 1, expert_parallel_size: 2}
tokens: {batch_accumulation_per_replica: 1, micro_batch_size: 4, sequence_length: 1024,
  train_steps: 100}
data_stages:
  - {name: one, start_training_step: 1, data: {seed: 42, dataset: {
      hf_dataset_or_datasets: some/corpus, hf_dataset_splits: train, text_column_name: text}}}
"""
LONG = """base_model: ./weights
datasets:
  - {path: ./talk.jsonl, type: chat_template}
chat_template: chatml
sequence_len: 64
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 1
max_steps: 2
learning_rate: 1e-4
lr_scheduler: cosine
optimizer: adamw_torch
"""


def imported(name: str, text: str) -> tuple[Imported, set[str]]:
    """What is made of a configuration, and what `check` wants filled in before anything runs."""
    made = import_config(text, name, options=Options())
    found = check(made.text)
    assert {each.code for each in found} == {"E335"}, [each.message for each in found]
    return made, {each.message.split("`")[1] for each in found}


def test_a_share_of_the_steps_warms_up_and_an_unknown_model_is_asked_for() -> None:
    made, missing = imported("share.yaml", SHARED)
    assert "lr        = 0 -> 2e-5 for 10%\n              then -> 0 cosine" in made.text
    assert missing == {"family", "dialogs", "template", "gpus", "batch"}


def test_a_mixture_of_experts_becomes_no_dense_model() -> None:
    made, missing = imported("moe.yaml", EXPERTS)
    assert "moe_num_experts = 4" in made.text
    assert missing == {"family", "tokenizer"}
    assert "adamw { betas = [0.9, 0.98], weight_decay = 0.01, eps = 1e-9 }" in made.text
    assert {"model.model_config.moe_num_experts", "model.model_config.is_llamoe_config"} <= {
        each.key for each in made.of("lost")
    }


def test_records_that_axolotl_drops_are_dropped() -> None:
    made, missing = imported("long.yaml", LONG)
    assert "long    = drop" in made.text
    assert missing == {"family", "gpus", "batch"}


TALK = """recipe talk { title = "x", seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer b { bytes }
dataset docs { sample = arithmetic, documents = 200 docs }
stage pre: train { model = tiny, steps = 2, seq_len = 256, batch = 4 seqs, lr = 1e-3, data = docs }
"""


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def lines(file: Path, records: list[Any]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def previewed(folder: Path, more: str, target: str) -> list[dict[str, Any]]:
    """What `etude preview --json` lists of all records of a stage."""
    made = etude.compile(etude.loads(TALK + more))
    return etude.preview(made, target, records=100, folder=folder / "run", root=folder)


def test_the_export_of_a_short_stage_knows_the_context_of_the_long_one_before() -> None:
    made = plan(
        TALK
        + "dialog chat { protocol = llama3 }\n"
        + 'dataset talk { files = "talk.jsonl", kind = dialogs }\n'
        + "stage sft: sft { steps = 2, seq_len = 64, batch = 2 seqs, lr = 1e-3, data = talk }\n"
    )
    exports = [job for job in made.jobs if isinstance(job, ExportJob)]
    assert {job.stage: job.model.context for job in exports} == {"sft": 256}


THINKING = """{%- for m in messages %}
{%- if m.role == 'assistant' %}
{{- '<|turn|>assistant\\n' }}
{%- if m.reasoning_content %}
{{- '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- m.content }}
{%- for c in m.tool_calls or [] %}
{%- set f = c.function %}
{{- '<call>\\n{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) + '}\\n</call>' }}
{%- endfor %}
{{- '<|over|>\\n' }}
{%- else %}
{{- '<|turn|>' + m.role + '\\n' + m.content + '<|over|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|turn|>assistant\\n<think>\\n' }}{%- endif %}
"""


def test_a_call_is_learned_from_its_beginning_where_the_prompt_opens_a_thought(
    tmp_path: Path,
) -> None:
    (tmp_path / "chat.jinja").write_text(THINKING)
    messages = [
        user("How warm is it in town 0?"),
        assistant("", tool_calls=[call("lookup", town=0)]),
        {"role": "tool", "content": "0 degrees"},
        assistant("It is 0 degrees.", reasoning_content="The tool told me."),
    ]
    lines(tmp_path / "talk.jsonl", [{"messages": messages}])
    (record,) = previewed(
        tmp_path,
        'dialog chat { template = "chat.jinja" }\n'
        'dataset talk { files = "talk.jsonl", kind = dialogs, holdout = 0% }\n'
        "stage sft: sft { steps = 2, seq_len = 512, batch = 2 seqs, lr = 1e-3, data = talk }\n",
        "sft",
    )
    assert "".join(part["text"] for part in record["parts"] if part["learned"]) == (
        '<call>\n{"name": "lookup", "arguments": {"town": 0}}\n</call><|over|>'
        "The tool told me.\n</think>\n\nIt is 0 degrees.<|over|>"
    )


def weather(number: int) -> dict[str, Any]:
    """A dialog in which every other record calls another tool, with other arguments."""
    names = {"weather": {"city": {"type": "string"}}, "add": {"a": {"type": "integer"}}}
    called = call("add", a=number) if number % 2 else call("weather", city="Oslo")
    return {
        "messages": [
            user(f"Question {number}"),
            assistant(None, tool_calls=[called]),
            {"role": "tool", "content": "42"},
            assistant(f"Answer {number}"),
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": f"{name} something",
                    "parameters": {"type": "object", "properties": properties},
                },
            }
            for name, properties in names.items()
        ],
    }


def test_calls_in_parquet_are_the_tokens_of_calls_in_lines(tmp_path: Path) -> None:
    records = [weather(number) for number in range(4)]
    lines(tmp_path / "calls.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "calls.parquet")
    found = {
        kind: previewed(
            tmp_path,
            "dialog chat { protocol = llama3 }\n"
            f'dataset talk {{ files = "calls.{kind}", kind = dialogs, holdout = 0% }}\n'
            "stage sft: sft { steps = 1, seq_len = 2048, batch = 1 seqs, lr = 1e-3, data = talk }",
            "sft",
        )
        for kind in ("jsonl", "parquet")
    }
    texts = {
        kind: [[(part["text"], part["learned"]) for part in each["parts"]] for each in records]
        for kind, records in found.items()
    }
    assert texts["parquet"] == texts["jsonl"]
    learned = ["".join(text for text, yes in parts if yes) for parts in texts["parquet"]]
    parameters = ['{"city": "Oslo"}', '{"a": 1}', '{"city": "Oslo"}', '{"a": 3}']
    for number, (text, written) in enumerate(zip(learned, parameters, strict=True)):
        name = "add" if number % 2 else "weather"
        called = f'{{"name": "{name}", "parameters": {written}}}'
        assert text == f"{called}<|eom_id|>Answer {number}<|eot_id|>"
    assert not any("null" in text for parts in texts["parquet"] for text, _ in parts)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PREFERRED = {
    "prompt": [user("q")],
    "chosen": [assistant("Yes, that is so.")],
    "rejected": [assistant("Yes, that is so. ")],
}
UNLEARNED = {
    "calls that a template does not write": (
        {"messages": [user("q"), assistant("", tool_calls=[call("look", n=0)]), assistant("0")]},
        "stage s: sft { from = pre, steps = 1, seq_len = 256, batch = 2 seqs, lr = 1e-3, "
        "data = given, dialog = own }",
        "the chat template does not render its `tool_calls` (the name of call 1)",
    ),
    "thoughts that a protocol has no words for": (
        {"messages": [user("q"), assistant("", reasoning_content="I think.")]},
        "stage s: sft { from = pre, steps = 1, seq_len = 256, batch = 2 seqs, lr = 1e-3, "
        "data = given, dialog = chat }",
        "has `reasoning_content`, which the dialog's protocol cannot render",
    ),
    "pairs that are equal once they are rendered": (
        PREFERRED,
        "stage s: dpo { from = pre, steps = 1, seq_len = 256, batch = 4 pairs, lr = 1e-3, "
        "data = given, dialog = chat }",
        "`chosen` and `rejected` are equal once they are rendered, so they have no order",
    ),
}


@pytest.mark.parametrize("case", UNLEARNED)
def test_a_record_of_which_nothing_is_learned_is_refused_with_the_reason(
    case: str, tmp_path: Path
) -> None:
    record, stage, reason = UNLEARNED[case]
    (tmp_path / "own.jinja").write_text(CHATML)
    lines(tmp_path / "given.jsonl", [record] * 2)
    kind = "dialogs" if "messages" in record else "preferences"
    found = previewed(
        tmp_path,
        "dialog chat { protocol = llama3 }\n"
        'dialog own { template = "own.jinja" }\n'
        f'dataset given {{ files = "given.jsonl", kind = {kind} }}\n' + stage + "\n",
        "s",
    )
    assert [each["place"] for each in found] == ["given.jsonl:1", "given.jsonl:2"]
    assert all(reason in each["refused"] for each in found)


def test_a_long_dialog_is_dropped_where_the_spec_says_so_and_refused_otherwise(
    tmp_path: Path,
) -> None:
    short = {"messages": [user("q"), assistant("a")]}
    lines(
        tmp_path / "talk.jsonl",
        [short, {"messages": [user("tell"), assistant("word " * 100)]}, short],
    )
    found = {
        long: previewed(
            tmp_path,
            "dialog chat { protocol = chatml }\n"
            f'dataset talk {{ files = "talk.jsonl", kind = dialogs, holdout = 0%{long} }}\n'
            "stage s: sft { from = pre, steps = 2, seq_len = 64, batch = 2 seqs, lr = 1e-4, "
            "data = talk }\n",
            "s",
        )
        for long in ("", ", long = drop")
    }
    kept = [("talk.jsonl:1", 2), ("talk.jsonl:3", 2)]  # `a` and the end of its message
    dropped, refused = found[", long = drop"], found[""]
    assert [(each["place"], each["learned"]) for each in dropped] == kept
    (long,) = (each for each in refused if "refused" in each)
    assert long["place"] == "talk.jsonl:2"
    assert long["refused"] == "the dialog takes 525 tokens, 461 more than the 64 allowed"
    assert "write `long = drop` or `long = truncate` in the dataset" in long["help"]
