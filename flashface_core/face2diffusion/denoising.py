"""CGDR, class-guided denoising regularisation: S* learns the face, not its background.

Written from the paper's figure and caption, as no training code was published (SYSTEMS.md section
B.6).
"""

import torch


def class_guided_target(
    noise: torch.Tensor, class_prediction: torch.Tensor, face: torch.Tensor
) -> torch.Tensor:
    """What "a photo of S*" shall predict: the noise on the face, "a photo of a person" elsewhere.

    noise, class_prediction: (B, 4, h, w), the noise of the latent and the model's prediction of
    it under the class prompt. face: (B, 1, h, w) in 0..1. No gradient flows into either.
    """
    return (noise * face + class_prediction * (1 - face)).detach()
