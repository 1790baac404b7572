import json
import subprocess
import sys

ALWAYS = {"accelerate", "datasets", "huggingface_hub", "safetensors", "timm", "torch", "torchvision", "transformers"}
UNTIL_SHOWN = {"matplotlib", "pandas", "rich"}
CODE = """
import importlib, json, pkgutil, sys
import hf_zoosel.ranking as room
def loaded(): return sorted({name.partition(".")[0] for name in sys.modules})
alone = loaded()
for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
    importlib.import_module(module.name)
print(json.dumps([alone, loaded()]))
"""


def test_the_records_need_numpy_alone_and_no_file_needs_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    alone, all_files = map(set, json.loads(done.stdout))
    assert "numpy" in alone
    assert not alone & (ALWAYS | UNTIL_SHOWN)
    assert {"matplotlib", "rich"} <= all_files
    assert not all_files & ALWAYS
