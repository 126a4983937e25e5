"""Post-training compared with TRL: SFT, reward model and DPO of a tiny model on the same records.

    python -m benchmarks.post_training [repeats]

Both read the same JSON lines in TRL's conversational formats, start from the same checkpoint, and
take the same number of records per step. TRL runs in two ways. With its defaults, except that it
does not recompute activations, which a tiny model does not need, and computes the reference's
log-probabilities in advance, as etude does. And at its best for these records: dialogs are packed
into full rows (`packing`, "wrapped", which lets them see each other), pairs are grouped by length,
and nothing is logged. In each repeat all three run, one after the other, in separate processes.
Figures are what the process does in a second of its time on processors, over all measured steps of
all repeats, from the end of a step to the end of the next one: other work on the machine does not
count. TRL's batches that are grouped by length come from the longest to the shortest of a few
hundred records, so the measured steps are a whole such group: a median of them would be that of a
batch that is shorter than the mean. Writes the section "Post-training" of
benchmarks/RESULTS.md.

TRL is taken from `build/trl`, which `make build/trl/.installed` fills, if it is not installed.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from .results import write_section

ROOT = Path(__file__).parent.parent
WARM = 15
"""Steps at the beginning of a stage that are not measured. With as many records as there are,
transformers sorts those of so many batches by their lengths (`get_length_grouped_indices`)."""
STEPS = 2 * WARM
ROWS = 8
PAIRS = 16
RECORDS = 1000
"""More than TRL trains on: it computes the reference's log-probabilities of all."""
SEQ_LEN = 512
UNITS = {"sft": "tokens/s", "reward": "pairs/s", "dpo": "pairs/s"}
SPEC = f"""
recipe bench {{ seed = 1 }}
dialog chat {{ protocol = chatml }}
tokenizer words {{ train = {{ on [corpus], vocab 512 }} }}
model tiny {{ layers = 2, dim = 128, heads = 4, kv_heads = 4, ffn = 512 }}
dataset corpus {{ sample = python_functions }}
dataset chats {{ files = "dialogs.jsonl", kind = dialogs, holdout = 0% }}
dataset likes {{ files = "preferences.jsonl", kind = preferences, holdout = 0% }}
stage start: train {{
  model = tiny, data = corpus, steps = 20, seq_len = {SEQ_LEN}, batch = 4 seqs, lr = 1e-3
  export = fp32
}}
stage sft: sft {{
  from = start, data = chats, steps = {STEPS}, batch = {ROWS} seqs, lr = 1e-4
  checkpoint every 1000 steps
}}
stage reward: reward {{
  from = start, data = likes, steps = {STEPS}, seq_len = {2 * SEQ_LEN}
  batch = {PAIRS} pairs, lr = 1e-4, checkpoint every 1000 steps
}}
stage dpo: dpo {{
  from = start, data = likes, steps = {STEPS}, seq_len = {2 * SEQ_LEN}
  batch = {PAIRS} pairs, lr = 1e-5, checkpoint every 1000 steps
}}
"""

Rates = dict[str, list[tuple[float, float]]]
"""Stage → what each measured step does, in units of its kind, and its seconds."""
WAYS = {
    "etude": "etude",
    "trl": "TRL, defaults",
    "trl_best": "TRL, best",
}


def make_data(folder: Path) -> None:
    """Dialogs and preferences in TRL's conversational formats, and the recipe."""
    from etude.runtime.data.samples import functions

    for form in ("dialogs", "preferences"):
        with (folder / f"{form}.jsonl").open("w") as file:
            for record in functions.records(form, count=RECORDS, seed=1):
                # Two responses each, as TRL requires.
                record = {name: said for name, said in record.items() if name != "edited"}
                file.write(json.dumps(record) + "\n")
    (folder / "bench.etude").write_text(SPEC)


def run_etude(folder: Path) -> Rates:
    """Runs the recipe; pairs, or tokens without padding, and seconds of processors of every
    measured step."""
    import etude

    rates: Rates = {stage: [] for stage in UNITS}
    last = 0.0

    def on_event(event: dict[str, Any]) -> None:
        nonlocal last
        if event["event"] != "step" or event["stage"] not in rates:
            return
        now = time.process_time()
        seconds, last = now - last, now
        if event["step"] < WARM:
            return
        tokens = event["tokens_per_second"] * event["seconds"]
        work = tokens if event["stage"] == "sft" else event["sequences"]
        rates[event["stage"]].append((work, seconds))

    plan = etude.compile(etude.load(folder / "bench.etude"))
    etude.run(plan, folder / "run", root=folder, on_event=on_event)
    return rates


# Long because TRL's three trainers are set up side by side.
def run_trl(folder: Path, watch: Any = None, *, best: bool = False) -> Rates:
    """Trains the same stages with TRL; returns the same as `run_etude`.

    Args:
        watch: makes a callback from the one that measures, to be called in its place.
        best: with the settings that are best for these records.
    """
    from datasets import load_dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )

    # Not a dependency of etude.
    sys.path.append(str(ROOT / "build" / "trl"))
    trl: Any = import_module("trl")
    model = folder / "start"
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    rates: Rates = {stage: [] for stage in UNITS}

    def arguments(kind: Any, stage: str, **more: Any) -> Any:
        return kind(
            output_dir=str(folder / "trl" / stage),
            max_steps=STEPS,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            **({"logging_steps": 10 * STEPS} if best else {}),
            max_length=SEQ_LEN,
            disable_tqdm=True,
            learning_rate=1e-4,
            **more,
        )

    class Clock(TrainerCallback):
        """Times each step."""

        def __init__(self, stage: str) -> None:
            self.stage = stage
            self.tokens = 0
            self.last = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.tokens = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = time.process_time()
            seconds, self.last = now - self.last, now
            if state.global_step > WARM:
                work = self.tokens if self.stage == "sft" else PAIRS
                rates[self.stage].append((work, seconds))

    def train(trainer: Any, stage: str) -> None:
        clock = Clock(stage)
        trainer.add_callback(watch(clock) if watch else clock)
        inner = trainer.compute_loss

        def compute_loss(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            if "attention_mask" in inputs:
                clock.tokens += int(inputs["attention_mask"].sum())
            elif "input_ids" in inputs:  # packed rows have no padding
                clock.tokens += inputs["input_ids"].numel()
            return inner(model, inputs, *rest, **named)

        trainer.compute_loss = compute_loss
        if best and stage != "sft":
            lengths = [
                len(row.get("prompt_ids", ()))
                + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
                for row in trainer.train_dataset
            ]
            trainer.train_dataset = trainer.train_dataset.add_column("length", lengths)
        trainer.train()

    chats = load_dataset("json", data_files=str(folder / "dialogs.jsonl"), split="train")
    likes = load_dataset("json", data_files=str(folder / "preferences.jsonl"), split="train")
    rows_of_dialogs = median(_dialogs_a_row(folder))
    batch = ROWS if best else max(round(ROWS * rows_of_dialogs), 1)
    packed = {"packing": True, "packing_strategy": "wrapped"} if best else {}
    # The column of lengths is unused by the model.
    by_length = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    grouped = by_length if best else {}
    train(
        trl.SFTTrainer(
            AutoModelForCausalLM.from_pretrained(model),
            processing_class=tokenizer,
            args=arguments(trl.SFTConfig, "sft", per_device_train_batch_size=batch, **packed),
            train_dataset=chats,
        ),
        "sft",
    )
    classifier = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    classifier.config.pad_token_id = tokenizer.pad_token_id
    train(
        trl.RewardTrainer(
            classifier,
            processing_class=tokenizer,
            train_dataset=likes,
            args=arguments(
                trl.RewardConfig, "reward", per_device_train_batch_size=PAIRS, **grouped
            ),
        ),
        "reward",
    )
    train(
        trl.DPOTrainer(
            AutoModelForCausalLM.from_pretrained(model),
            processing_class=tokenizer,
            train_dataset=likes,
            args=arguments(
                trl.DPOConfig,
                "dpo",
                per_device_train_batch_size=PAIRS,
                precompute_ref_log_probs=True,
                **grouped,
            ),
        ),
        "dpo",
    )
    return rates


def _dialogs_a_row(folder: Path) -> list[float]:
    """The number of dialogs that fit into a packed row: TRL gets as many per step as etude."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "start" / "tokenizer.json"))
    lengths = []
    for line in (folder / "dialogs.jsonl").read_text().splitlines():
        text = "".join(message["content"] for message in json.loads(line)["messages"])
        lengths.append(len(tokenizer.encode(text).ids) + 10)
    return [SEQ_LEN / (sum(lengths) / len(lengths))]


def _expose_start(folder: Path) -> None:
    """Links the export of the stage `start`, from which both train."""
    import etude
    from etude.compiler.plan.plan import ExportJob
    from etude.runtime.run_folder.store import Store

    plan = etude.compile(etude.load(folder / "bench.etude"))
    exported = next(j for j in plan.jobs if isinstance(j, ExportJob) and j.stage == "start")
    store = Store(folder / "run")
    keys = {event["job"]: event["key"] for event in store.events()}
    artifact = store.artifact(keys[exported.id])
    assert artifact
    if not (folder / "start").exists():
        (folder / "start").symlink_to(artifact.resolve())


def main(repeats: int) -> None:
    rates: dict[str, Rates] = {way: {stage: [] for stage in UNITS} for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(repeats):
            folder = Path(name) / str(repeat)
            folder.mkdir()
            make_data(folder)
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.post_training", way, str(folder)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                for stage, values in json.loads(output.stdout.splitlines()[-1]).items():
                    rates[way][stage] += values
    write_section("Post-training", table(rates, repeats))


def _rate(steps: list[tuple[float, float]]) -> float:
    """What a second does."""
    return sum(work for work, _ in steps) / sum(seconds for _, seconds in steps)


def table(rates: dict[str, Rates], repeats: int) -> str:
    """The section of the results."""
    rows = []
    for stage, unit in UNITS.items():
        ours, *theirs = (_rate(of[stage]) for of in rates.values())
        shown = " | ".join(f"{each:,.0f} | {ours / each:.2f}" for each in theirs)
        rows.append(f"| {stage} | {unit} | {ours:,.0f} | {shown} |")
    names = ("torch", "torchtitan", "trl", "transformers")
    sys.path.append(str(ROOT / "build" / "trl"))
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"`python -m benchmarks.post_training {repeats}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}; 2 layers, 128 wide, vocabulary 512, "
        f"{STEPS - WARM} steps × {repeats}, {PAIRS} pairs or {ROWS} rows of {SEQ_LEN} tokens a "
        f"step; all of them, a second of processors, OMP_NUM_THREADS {threads}; load average "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n\n"
        f"| stage | | {' | × | '.join(WAYS.values()).replace(' | × |', ' |', 1)} | × |\n"
        f"| --- | --- | ---: |{' ---: | ---: |' * (len(WAYS) - 1)}\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        place = Path(sys.argv[2])
        best = sys.argv[1] == "trl_best"
        measured = run_etude(place) if sys.argv[1] == "etude" else run_trl(place, best=best)
        if sys.argv[1] == "etude":
            _expose_start(place)
        print(json.dumps(measured))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
