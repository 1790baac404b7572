"""What is published on the Hub: every metric as a Space that ``evaluate`` loads."""

from hf_zoosel._torchvision import mend_torchvision

mend_torchvision()  # before anything imports evaluate

from hf_zoosel.hub.evaluate_space import write_spaces as write_spaces  # noqa: E402
