"""Objectives of fine-tuning: losses, regularisers and the relationship between categories; tensors in, tensors out."""

from hf_zoosel.objectives.bss import bss as bss
from hf_zoosel.objectives.co_tuning import co_tuning_loss as co_tuning_loss
from hf_zoosel.objectives.consistency import consistency_loss as consistency_loss
from hf_zoosel.objectives.delta import (
    channel_weights as channel_weights,
    delta as delta,
    measure_channel_weights as measure_channel_weights,
)
from hf_zoosel.objectives.l2_sp import l2_sp as l2_sp
from hf_zoosel.objectives.lwf import lwf as lwf
from hf_zoosel.objectives.mars import project_distances as project_distances
from hf_zoosel.objectives.registry import (
    REGULARIZERS as REGULARIZERS,
    Regularizer as Regularizer,
    RegularizerKind as RegularizerKind,
    RegularizerNeed as RegularizerNeed,
    get_regularizer as get_regularizer,
)
from hf_zoosel.objectives.relationship import category_relationship as category_relationship
from hf_zoosel.objectives.relationship_record import Relationship as Relationship
from hf_zoosel.objectives.stoch_norm import (
    StochNorm1d as StochNorm1d,
    StochNorm2d as StochNorm2d,
    replace_norms as replace_norms,
    restore_norms as restore_norms,
)
from hf_zoosel.objectives.temperature import fit_temperature as fit_temperature
