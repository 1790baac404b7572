"""Transferability metrics: tensors in, one float out, higher is better."""

from hf_zoosel.metrics.domain_similarity import domain_similarity as domain_similarity
from hf_zoosel.metrics.gbc import gbc as gbc
from hf_zoosel.metrics.h_score import h_score as h_score
from hf_zoosel.metrics.knn import knn as knn
from hf_zoosel.metrics.leep import leep as leep
from hf_zoosel.metrics.lfc import lfc as lfc
from hf_zoosel.metrics.lgc import lgc as lgc
from hf_zoosel.metrics.linear import linear as linear
from hf_zoosel.metrics.logme import logme as logme
from hf_zoosel.metrics.logme_regression import logme_regression as logme_regression
from hf_zoosel.metrics.nce import nce as nce
from hf_zoosel.metrics.nleep import nleep as nleep
from hf_zoosel.metrics.otce import otce as otce
from hf_zoosel.metrics.pactran import pactran as pactran
from hf_zoosel.metrics.parc import parc as parc
from hf_zoosel.metrics.registry import (
    METRICS as METRICS,
    VARIANTS as VARIANTS,
    Metric as Metric,
    Need as Need,
    get_metric as get_metric,
)
from hf_zoosel.metrics.rsa import rank_reference as rank_reference, rsa as rsa
from hf_zoosel.metrics.sfda import sfda as sfda
from hf_zoosel.metrics.transrate import transrate as transrate
