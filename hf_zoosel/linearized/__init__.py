"""The linearised framework: kernels of gradients, the scores they give, and the loss curve they predict."""

from hf_zoosel.linearized.curve import LossCurve as LossCurve, predicted_loss as predicted_loss
from hf_zoosel.linearized.gradients import per_sample_gradients as per_sample_gradients
from hf_zoosel.linearized.kernel import ntk as ntk
from hf_zoosel.linearized.scores import (
    generalization_score as generalization_score,
    initial_decrease as initial_decrease,
    label_gradient_score as label_gradient_score,
    signed_targets as signed_targets,
)
