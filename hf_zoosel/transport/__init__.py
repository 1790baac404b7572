"""Optimal transport between what a model learnt from and what it shall learn: source rows onto target columns."""

from hf_zoosel.transport.capacity import capacity_plan as capacity_plan
from hf_zoosel.transport.cost import cosine_cost as cosine_cost, euclidean_cost as euclidean_cost
from hf_zoosel.transport.plan import Plan as Plan
from hf_zoosel.transport.samples import (
    SampleMass as SampleMass,
    semi_relaxed_mass as semi_relaxed_mass,
    unbalanced_mass as unbalanced_mass,
)
from hf_zoosel.transport.semi_relaxed import semi_relaxed_plan as semi_relaxed_plan
from hf_zoosel.transport.unbalanced import unbalanced_plan as unbalanced_plan
