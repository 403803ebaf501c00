"""The same with a client library: pip install comfy-api-simplified.

python api_examples/with_library.py 127.0.0.1:8188 PHOTO
"""

import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

server, photo = sys.argv[1:] if len(sys.argv) == 3 else sys.exit(__doc__)
api = ComfyApiWrapper(f"http://{server}")
workflow = ComfyWorkflowWrapper("workflows/api/01_start_here.json")
sent = api.upload_image(photo)
image = f"{sent['subfolder']}/{sent['name']}"
workflow["2"].update(class_type="LoadImage", inputs={"image": image})  # node 2: Photos
workflow.set_node_param("Positive prompt", "text", "a portrait of an elder, smiling, upright")
workflow.set_node_param("KSampler", "seed", 7)
for name, picture in api.queue_and_wait_images(workflow, "Save Image").items():
    Path(name).write_bytes(picture)
    print(len(picture), "bytes:", name)
