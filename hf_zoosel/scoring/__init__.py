"""From features to scores: of one candidate, then over the zoo."""

from hf_zoosel.scoring.candidate import Scored as Scored, score as score
from hf_zoosel.scoring.extras import gather_extras as gather_extras
from hf_zoosel.scoring.inputs import Extras as Extras
from hf_zoosel.scoring.zoo import score_over_zoo as score_over_zoo
