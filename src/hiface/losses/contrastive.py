# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss of embeddings: pictures of one person attract, others repel."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.errors import ShapeError


def supervised_contrastive(embeddings: Tensor, persons: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

    Args:
        embeddings: [N, n] unit vectors.
        persons: [N] number of each one's person.
        temperature: Of the softmax.

    Returns:
        Mean over the pictures that have a partner in the batch.

    Raises:
        ShapeError: No picture has a partner.
    """
    n = len(embeddings)
    itself = torch.eye(n, dtype=torch.bool, device=embeddings.device)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    partners = (persons[:, None] == persons[None]) & ~itself
    count = partners.sum(dim=1)
    if not bool((count > 0).any()):
        raise ShapeError("no two embeddings are of one person; draw several pictures of each")
    per_picture = -log_share.masked_fill(~partners, 0.0).sum(dim=1) / count.clamp_min(1)
    return per_picture[count > 0].mean()
