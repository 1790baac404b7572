"""From candidates and a task to features: decoded once, one forward pass each, cached."""

from hf_zoosel.features.extract import extract as extract
from hf_zoosel.features.forward import Runtime as Runtime, pick_dtype as pick_dtype
from hf_zoosel.features.record import Features as Features
from hf_zoosel.features.source_features import (
    SourceFeatures as SourceFeatures,
    source_features as source_features,
)
from hf_zoosel.features.statistics import source_statistics as source_statistics
from hf_zoosel.features.store import FeatureStore as FeatureStore, open_store as open_store
from hf_zoosel.features.team import Team as Team, best_device as best_device, join_team as join_team
