"""A list of people and prompts in, pictures and a table out: docs/AUTOMATION.md. Optional."""
