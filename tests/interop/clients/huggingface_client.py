"""huggingface_hub's provider for BFL, with a key of BFL's own, as its documentation shows.

Its address is written into it (https://api.us1.bfl.ai), so HTTPS_PROXY and REQUESTS_CA_BUNDLE decide who answers there.
Which of BFL's models stands behind a name on the Hub is asked of the Hub; HF_ENDPOINT says where that is.
"""

import json
import os
import sys

from huggingface_hub import InferenceClient

folder = sys.argv[1]
client = InferenceClient(provider="black-forest-labs", api_key=os.environ["BFL_API_KEY"])
image = client.text_to_image("a red fox", model="black-forest-labs/FLUX.1-dev", width=512, height=256, seed=7)
image.save(f"{folder}/image.png")
again = client.text_to_image(
    "a red fox", model="black-forest-labs/FLUX.1-dev", num_inference_steps=20, guidance_scale=3
)
again.save(f"{folder}/again.png")

try:
    InferenceClient(provider="black-forest-labs", api_key="no key at all").text_to_image(
        "a red fox", model="black-forest-labs/FLUX.1-dev"
    )
except Exception as error:
    refusal = f"{type(error).__name__}: {error}"
print(json.dumps({"refusal": refusal}))
