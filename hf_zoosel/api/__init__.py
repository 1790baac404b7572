"""The public verbs, one file each."""

from hf_zoosel.api.rank import rank_models as rank_models
