# python api_examples/first.py 127.0.0.1:8188 PHOTO: a picture of somebody, by the ComfyUI there.
import json
import sys
from pathlib import Path

import requests
import websocket

_, server, *photos = sys.argv if len(sys.argv) > 2 else sys.exit("give 127.0.0.1:8188 PHOTO")
workflow = json.loads(Path("workflows/api/01_start_here.json").read_text())
node = {one["_meta"]["title"]: one for one in workflow.values()}
for title, photo in zip(sorted(t for t in node if t[:5] == "Photo"), photos, strict=True):
    image = {"image": (f"{title}.png", Path(photo).read_bytes())}
    sent = requests.post(f"http://{server}/upload/image", files=image).json()
    node[title].update(class_type="LoadImage", inputs={"image": sent["name"]})
node["Positive prompt"]["inputs"]["text"] = "a portrait of an elder, smiling, upright"
node["KSampler"]["inputs"]["seed"] = 7
events = websocket.create_connection(f"ws://{server}/ws?clientId=me")
answer = requests.post(f"http://{server}/prompt", json={"prompt": workflow, "client_id": "me"})
assert answer.ok and not answer.json()["node_errors"], answer.text  # it may run a part alone
for event in (json.loads(one) for one in events if isinstance(one, str)):  # bytes: previews
    for image in (event["data"].get("output") or {}).get("images", ()):
        Path(image["filename"]).write_bytes(requests.get(f"http://{server}/view", image).content)
    if event["type"] in ("execution_success", "execution_error"):
        sys.exit(event["data"].get("exception_message"))
