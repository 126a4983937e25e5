"""What to write instead of an attribute that a block lacks."""

from collections.abc import Iterable, Mapping

from ..findings.diagnostics import did_you_mean
from . import recipe as r

BLOCKS: Mapping[type[r.Declaration], str] = {
    r.Header: "recipe",
    r.Tracker: "tracker",
    r.Model: "model",
    r.Experts: "experts",
    r.Latent: "latent",
    r.RopeScaling: "rope_scaling",
    r.Tokenizer: "tokenizer",
    r.TokenizerTraining: "vocabulary",
    r.Dataset: "dataset",
    r.Fields: "fields",
    r.Dialog: "dialog",
    r.Verifier: "verifier",
    r.Cluster: "cluster",
    r.Optimizer: "optimizer",
    r.Gate: "gate",
    r.Needle: "needle",
    r.Evaluation: "evaluation",
    r.Torchtitan: "torchtitan",
    r.TrainingFields: "torchtitan.training",
    r.ParallelismFields: "torchtitan.parallelism",
    r.CompileFields: "torchtitan.compile",
    r.CommFields: "torchtitan.comm",
    r.DebugFields: "torchtitan.debug",
    r.OptimizerFields: "torchtitan.optimizer",
    **{model: kind for kind, model in r.STAGES.items()},
}
"""The blocks and groups that have attributes → their names in the tables."""


def instead_of(name: str, known: Iterable[str], of: type[r.Declaration] | None) -> str:
    """The answer for an attribute from another program, or else the known attribute that is meant.

    Args:
        known: the attributes that the block has.
        of: the model of the block, if it has one.
    """
    from ..foreign import answers  # only after an error: checking a spec may take only 0.1 s

    names = sorted(known)
    language = {block: r.attributes(model) for model, block in BLOCKS.items()}
    said = answers.attribute(name, BLOCKS.get(of, ""), names, language) if of else ""
    return said or did_you_mean(name, names)
