"""Writes the tables of attributes in docs/language.md from the schema:
`python docs/reference.py`."""

import re
from pathlib import Path

from etude.spec.schema import recipe as r
from etude.spec.schema.documentation import entry

PAGE = Path(__file__).with_name("language.md")
HEAD = "| attribute | value | default | meaning |\n| --- | --- | --- | --- |\n"
TABLES: dict[str, type[r.Declaration]] = {
    "`recipe`": r.Header,
    "`tracking`": r.Tracker,
    "`model`": r.Model,
    "`experts` of a model": r.Experts,
    "`latent` of a model": r.Latent,
    "`parts` of a model": r.Parts,
    "`yarn` and `llama` of `rope_scaling`": r.RopeScaling,
    "`tokenizer`": r.Tokenizer,
    "`train` of a tokenizer": r.TokenizerTraining,
    "`dataset`": r.Dataset,
    "`fields` of a dataset": r.Fields,
    "`fim` of a dataset": r.Fim,
    "`dialog`": r.Dialog,
    "`verifier`": r.Verifier,
    "`cluster`": r.Cluster,
    "`stage NAME: train`": r.Train,
    "`stage NAME: sft`": r.Sft,
    "`stage NAME: distill`": r.Distill,
    "`stage NAME: reward`": r.Reward,
    "`stage NAME: dpo`": r.Dpo,
    "`stage NAME: kto`": r.Kto,
    "`stage NAME: prm`": r.Prm,
    "`stage NAME: grpo`": r.Grpo,
    "`dynamic_sampling`": r.DynamicSampling,
    "`stage NAME: score`": r.Score,
    "`stage NAME: sample`": r.Sample,
    "`optimizer`": r.Optimizer,
    "`precision`": r.Precision,
    "`adapter`": r.Adapter,
    "`evaluate`": r.Evaluation,
    "`profile`": r.Profile,
    "`spikes`": r.Spikes,
    "`stage NAME: checkpoint`": r.Checkpoint,
    "`stage NAME: average`": r.Average,
    "`stage NAME: best`": r.Best,
    "`stage NAME: ensemble`": r.Ensemble,
    "`stage NAME: evaluate`": r.Evaluate,
    "Measures": r.Measuring,
    "`needle`": r.Needle,
    "`torchtitan`": r.Torchtitan,
    "`training` of `torchtitan`": r.TrainingFields,
    "`parallelism` of `torchtitan`": r.ParallelismFields,
    "`compile` of `torchtitan`": r.CompileFields,
    "`comm` of `torchtitan`": r.CommFields,
    "`debug` of `torchtitan`": r.DebugFields,
    "`optimizer` of `torchtitan`": r.OptimizerFields,
}
"""Heading → the model whose attributes its table lists."""
_TABLE = re.compile(re.escape(HEAD) + r"(?:\| .*\n)*")


def own(model: type[r.Declaration]) -> dict[str, r.Attribute]:
    """The attributes that a model's table lists, without those that several kinds share."""
    found = r.attributes(model)
    for shared in (r.Training, r.Measuring):
        if issubclass(model, shared) and model not in (shared, r.Train):
            found = {n: of for n, of in found.items() if n not in r.attributes(shared)}
    return found


def table(model: type[r.Declaration]) -> str:
    """The table of a model's attributes."""
    rows = [entry(name, of) for name, of in own(model).items()]
    lines = (f"| `{n}` | {' | '.join(row)} |\n" for n, row in zip(own(model), rows, strict=True))
    return HEAD + "".join(lines)


def text() -> str:
    """The page with its tables rebuilt from the schema."""
    parts = re.split(r"(^#+ .+\n)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for place, heading in enumerate(parts[1::2]):
        model = TABLES.get(heading.strip("# \n"))
        if model:
            before, after = _TABLE.split(parts[2 * place + 2], maxsplit=1)
            parts[2 * place + 2] = before + table(model) + after
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
