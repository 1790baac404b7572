"""Pushes the folders it is told to, loads them again from the Hub, and prints what came of it as JSON."""

import io
import json
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch

from hf_zoosel.hub.push import PushError, push_folder

torch.set_num_threads(1)


def outcome(folder, repo_id, **options):
    """Address of the commit, or the error."""
    try:
        return push_folder(folder, repo_id, **options)
    except (PushError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def pull(repo_id, library, pixels):
    """What the model answers, and what the code of its card prints."""
    import timm  # after hf_zoosel, which mends a torchvision that does not fit torch
    from transformers import AutoModelForImageClassification

    with torch.inference_mode():
        found = {"transformers": AutoModelForImageClassification.from_pretrained(repo_id)(pixels).logits.tolist()}
        if library == "timm":
            found["timm"] = timm.create_model(f"hf-hub:{repo_id}", pretrained=True).eval()(pixels).tolist()
    return found


def run_code_of(card):
    """What the code under "How to use it" prints, in a folder that has an ``image.jpg``."""
    section = card.read_text().partition("## How to use it")[2].partition("\n## ")[0]
    printed = io.StringIO()
    with redirect_stdout(printed):
        for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            exec(code, {})
    return printed.getvalue()


def push_and_pull(root):
    timm_folder, vit_folder = root / "timm", root / "vit"
    pixels = torch.load(root / "pixels.pt", weights_only=True)
    found = {"first": outcome(timm_folder, "me/birds", private=True)}
    with (timm_folder / "README.md").open("a") as card:
        card.write("\nA line more.\n")
    found["second"] = outcome(timm_folder, "me/birds", commit_message="More")
    found["same"] = outcome(timm_folder, "birds")
    found["branch"] = outcome(vit_folder, "me/birds", revision="vit", ignore=("*.md",))
    found["vit"] = outcome(vit_folder, "me/vit", ignore=())
    for name in ("flaky", "full", "forbidden", "down"):
        found[name] = outcome(timm_folder, f"me/{name}")
    found["other"] = outcome(timm_folder, "other/birds")
    found["header"] = outcome(root / "header", "me/header")
    found["pulled"] = {"timm": pull("me/birds", "timm", pixels), "vit": pull("me/vit", "transformers", pixels)}
    os.chdir(root)
    found["printed"] = {name: run_code_of(root / name / "README.md") for name in ("timm", "vit")}
    found["token"] = outcome(timm_folder, "me/birds", token="hf_old")
    del os.environ["HF_TOKEN"]
    found["logged out"] = outcome(timm_folder, "me/birds")
    return found


if __name__ == "__main__":
    where = Path(sys.argv[1])
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    print(json.dumps(outcome(where / "timm", "me/birds") if offline else push_and_pull(where)))  # noqa: T201
