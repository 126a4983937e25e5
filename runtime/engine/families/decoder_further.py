"""How ranks share the modules of decoders that predict further tokens."""

from typing import Any

import spmd_types as spmd
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    dense_param_placement,
    norm_config,
    pre_lm_head_norm_config,
)
from torchtitan.protocols.sharding import ShardingConfig


def shard_module(module: Any, layout: Any, *, enable_sp: bool) -> None:
    """How tensor and sequence parallelism share what a module has besides its layer, as in
    torchtitan's DeepSeek-V3: the matrix is whole on every rank.

    Args:
        layout: of activations between layers.
    """
    if enable_sp:
        whole = dense_activation_placement(tp=spmd.R)
        module.sharding_config = ShardingConfig(
            in_src_shardings={"mtp_input_valid_mask": whole},
            in_dst_shardings={"mtp_input_valid_mask": layout},
        )
    module.enorm.sharding_config = norm_config(enable_sp=enable_sp)
    module.hnorm.sharding_config = norm_config(enable_sp=enable_sp)
    module.mtp_norm.sharding_config = pre_lm_head_norm_config(enable_sp=enable_sp)
    module.eh_proj.sharding_config = ShardingConfig(
        state_shardings={"weight": dense_param_placement(tp=spmd.R)},
        in_src_shardings={"input": layout},
        out_src_shardings=layout,
    )
