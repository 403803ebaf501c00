"""The other methods: what each adds to the engine that they share with FlashFace."""
