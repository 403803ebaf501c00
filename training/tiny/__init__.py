"""What trains and measures the tiny models that come with the pack."""
