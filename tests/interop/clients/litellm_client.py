"""litellm's provider for BFL.

It takes an `api_base`, and then refuses every polling URL that is not https under bfl.ai; so it is left at its own
address, and HTTPS_PROXY and SSL_CERT_FILE, which it honours, decide who answers there.
"""

import asyncio
import base64
import json
import os
import sys

import litellm
import requests

folder = sys.argv[1]
litellm.suppress_debug_info = True


def keep(response, name):
    image = response.data[0]
    data = base64.b64decode(image.b64_json) if image.b64_json else requests.get(image.url, timeout=30).content
    with open(f"{folder}/{name}", "wb") as file:
        file.write(data)


model = "black_forest_labs/flux-pro-1.1"
keep(litellm.image_generation(prompt="a red fox", model=model, size="512x256", output_format="png"), "sync.png")

# Its asynchronous side speaks through another HTTP library.
coroutine = litellm.aimage_generation(prompt="a red fox", model=model, size="512x256", output_format="png")
keep(asyncio.run(coroutine), "async.png")

with open(f"{folder}/photo.png", "rb") as photo:
    edited = litellm.image_edit(model="black_forest_labs/flux-kontext-pro", image=photo, prompt="make it night")
keep(edited, "edited.png")

os.environ["BFL_API_KEY"] = "no key at all"
try:
    litellm.image_generation(prompt="a red fox", model=model, size="512x256")
except Exception as error:
    refusal = f"{type(error).__name__}: {error}"
print(json.dumps({"refusal": refusal}))
