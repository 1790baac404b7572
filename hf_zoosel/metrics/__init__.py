"""Transferability metrics: tensors in, one float out, higher is better."""

from hf_zoosel.metrics.knn import knn as knn
from hf_zoosel.metrics.leep import leep as leep
from hf_zoosel.metrics.lfc import lfc as lfc
from hf_zoosel.metrics.linear import linear as linear
from hf_zoosel.metrics.logme import logme as logme
from hf_zoosel.metrics.registry import METRICS as METRICS, Metric as Metric, Need as Need, get_metric as get_metric
