import subprocess
import sys

FORBIDDEN = {
    "accelerate", "datasets", "huggingface_hub", "safetensors", "timm", "torch", "torchvision", "transformers",
    "matplotlib", "pandas", "rich", "PIL",
}  # fmt: skip


def test_the_records_need_numpy_alone():
    code = "import sys, hf_zoosel.ranking; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert FORBIDDEN & set(loaded) == set()
