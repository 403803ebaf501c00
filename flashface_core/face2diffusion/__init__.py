"""Face2Diffusion (Shiohara and Yamasaki, CVPR 2024): a face as a word of the prompt, S*.

    face (112 x 112) -> MSID encoder -> v (1536)
    v, expression (64) or none -> mapping network -> S*, the input embeddings of two text tokens

The diffusion model is left as it is. docs/SYSTEMS.md section B has every formula.
"""
