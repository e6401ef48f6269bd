"""The official client as its README uses it; `base_url` is an argument of its own."""

import json
import os
import sys

import requests
from blackforest import BFLClient
from blackforest.client import BFLError
from blackforest.types.general.client_config import ClientConfig

client = BFLClient(api_key=os.environ["BFL_API_KEY"], base_url=os.environ["BFL_BASE_URL"])
config = ClientConfig(sync=True, timeout=60)
folder = sys.argv[1]

# Without sync it hands out the task.
task = client.generate("flux-pro-1.1", {"prompt": "a red fox", "width": 512, "height": 256, "output_format": "png"})
status = client.get_task_status(task.id)
while status.status == "Pending":
    status = client.get_task_status(task.id)
with open(f"{folder}/task.png", "wb") as file:
    file.write(requests.get(status.result["sample"], timeout=30).content)

# With sync it polls by itself.
for model, inputs in {
    "flux-dev": {"prompt": "a red fox", "width": 256, "height": 256, "output_format": "png"},
    "flux-pro-1.1-ultra": {"prompt": "a red fox", "aspect_ratio": "1:1", "output_format": "png"},
    "flux-kontext-pro": {"prompt": "make it night", "input_image": f"{folder}/photo.png", "output_format": "png"},
}.items():
    result = client.generate(model, inputs, config)
    sample = result["sample"] if isinstance(result, dict) else result.result["sample"]
    with open(f"{folder}/{model}.png", "wb") as file:
        file.write(requests.get(sample, timeout=30).content)

try:
    BFLClient(api_key="no key at all", base_url=os.environ["BFL_BASE_URL"]).generate("flux-dev", {"prompt": "x"})
except BFLError as error:
    refusal = str(error)
print(json.dumps({"refusal": refusal, "seed": status.result["seed"]}))
