"""The only folder that knows ModelPatcher, wrappers and ComfyUI's memory management."""
