"""Candidates: what can be ranked, wherever it lies."""

from hf_zoosel._torchvision import mend_torchvision

mend_torchvision()  # before anything here imports timm

from hf_zoosel.zoo.candidate import Candidate as Candidate  # noqa: E402
from hf_zoosel.zoo.embedded import embedded_models as embedded_models  # noqa: E402
from hf_zoosel.zoo.errors import CandidateError as CandidateError  # noqa: E402
from hf_zoosel.zoo.network import Network as Network, Output as Output  # noqa: E402
from hf_zoosel.zoo.preprocess import Preprocess as Preprocess  # noqa: E402
from hf_zoosel.zoo.provenance import Provenance as Provenance  # noqa: E402
from hf_zoosel.zoo.resolve import Spec as Spec, name_models as name_models, resolve as resolve  # noqa: E402
from hf_zoosel.zoo.source_stats import SourceStats as SourceStats  # noqa: E402
