"""The public verbs, one file each."""

from hf_zoosel.api.finetune import finetune as finetune
from hf_zoosel.api.rank import rank_models as rank_models
from hf_zoosel.api.relate import relate_classes as relate_classes
from hf_zoosel.api.select import select_source as select_source
from hf_zoosel.api.sheet import contact_sheet as contact_sheet
