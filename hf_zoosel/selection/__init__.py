"""The part of a source data set worth training with: strategies over class means, and the record of a choice."""

from hf_zoosel.selection.clusters import Clusters as Clusters, cluster as cluster
from hf_zoosel.selection.contact_sheet import Section as Section, Tile as Tile, contact_sheet as contact_sheet
from hf_zoosel.selection.groups import Groups as Groups, group as group
from hf_zoosel.selection.options import read_options as read_options
from hf_zoosel.selection.pool import Pool as Pool
from hf_zoosel.selection.record import (
    Server as Server,
    SourceClass as SourceClass,
    SourceSelection as SourceSelection,
    TargetClass as TargetClass,
)
from hf_zoosel.selection.samples import (
    SAMPLE_METHODS as SAMPLE_METHODS,
    sample_method as sample_method,
    select_samples as select_samples,
)
from hf_zoosel.selection.select import check_k as check_k, select_groups as select_groups
from hf_zoosel.selection.sheet import selection_sheet as selection_sheet, shown_in as shown_in
from hf_zoosel.selection.strategies import (
    STRATEGIES as STRATEGIES,
    get_strategy as get_strategy,
    options_from_settings as options_from_settings,
)
