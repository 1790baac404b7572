import json
import subprocess
import sys

NEVER = {"accelerate", "datasets", "huggingface_hub", "timm", "torchvision", "transformers"}
UNTIL_USED = {"matplotlib", "ot", "pandas", "rich", "scipy", "sklearn"}
CODE = """
import json, sys
import hf_zoosel.selection
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_room_needs_torch_and_pillow_alone():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & (NEVER | UNTIL_USED)
