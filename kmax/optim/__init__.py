"""Settings of the optimizer: parameter groups, and the learning rate over the steps."""

from kmax.optim.param_groups import parameter_groups
from kmax.optim.restored import follow_options
from kmax.optim.schedule import warmup_poly

__all__ = ["follow_options", "parameter_groups", "warmup_poly"]
