"""A client of AUTOMATIC1111's web UI, as its readers write it; its host and port are settings of its own."""

import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import webuiapi
from PIL import Image

folder, where = Path(sys.argv[1]), urlsplit(os.environ["BFL_BASE_URL"])
api = webuiapi.WebUIApi(host=where.hostname, port=where.port, sampler="Euler", steps=20)
api.set_auth("anyone", os.environ["BFL_API_KEY"])
photo = Image.open(folder / "photo.png")
white = Image.new("L", photo.size)
white.paste(255, (64, 64, 192, 192))

api.util_set_model("flux-2-klein-4b")
made = api.txt2img(prompt="a red fox", negative_prompt="blurry", width=512, height=256, seed=7, batch_size=2)
for number, image in enumerate(made.images):
    image.save(folder / f"made-{number}.png")
changed = api.img2img(images=[photo], prompt="at night", width=256, height=128)
changed.image.save(folder / "changed.png")
filled = api.img2img(images=[photo], mask_image=white, prompt="a lake", width=256, height=256)
filled.image.save(folder / "filled.png")
print(
    json.dumps(
        {
            "models": api.util_get_model_names(),
            "current": api.util_get_current_model(),
            "samplers": api.util_get_sampler_names(),
            "progress": api.get_progress()["progress"],
            "seeds": made.info["all_seeds"],
        }
    )
)
