"""What is published on the Hub: a fine-tuned model with its card, and every metric as a Space for ``evaluate``."""

from hf_zoosel._torchvision import mend_torchvision

mend_torchvision()  # before anything imports evaluate

from hf_zoosel.hub.card_facts import CardFacts as CardFacts  # noqa: E402
from hf_zoosel.hub.evaluate_space import write_spaces as write_spaces  # noqa: E402
from hf_zoosel.hub.model_card import write_card as write_card  # noqa: E402
from hf_zoosel.hub.push import (  # noqa: E402
    PushError as PushError,
    check_can_push as check_can_push,
    push_folder as push_folder,
)
