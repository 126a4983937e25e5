"""The kinds of stages, one module each: resolution, jobs, and what is shown."""

from collections.abc import Mapping

from ...spec.schema import recipe as r
from ..program import Weights
from .average import AVERAGE
from .best import BEST
from .checkpoint import CHECKPOINT
from .distill import DISTILL
from .dpo import DPO
from .ensemble import ENSEMBLE
from .evaluate import EVALUATE
from .grpo import GRPO
from .kind import Kind
from .kto import KTO
from .prm import PRM
from .reward import REWARD
from .sample import SAMPLE
from .score import SCORE
from .sft import SFT
from .train import TRAIN
from .weights import WEIGHTS

KINDS: Mapping[type[r.Stage], Kind] = {
    r.Train: TRAIN,
    r.Sft: SFT,
    r.Distill: DISTILL,
    r.Reward: REWARD,
    r.Dpo: DPO,
    r.Kto: KTO,
    r.Prm: PRM,
    r.Grpo: GRPO,
    r.Score: SCORE,
    r.Sample: SAMPLE,
    r.Checkpoint: CHECKPOINT,
    r.Average: AVERAGE,
    r.Best: BEST,
    r.Ensemble: ENSEMBLE,
    r.Evaluate: EVALUATE,
    Weights: WEIGHTS,
}
"""Model in the schema → kind, for every kind of stage and for published weights."""
