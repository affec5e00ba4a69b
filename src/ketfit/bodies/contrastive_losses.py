"""The supervised contrastive loss of Khosla et al., arXiv 2004.11362, with an optional cross-entropy term."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from ketfit.bodies.finetuned import embed_by_length


def supervised_contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean supervised contrastive loss (equation 2 of arXiv 2004.11362) of a batch, a scalar.

    For each sentence it is the mean of -log p over the other sentences of its label, where p is the softmax of the
    cosines to all other sentences, divided by the temperature. A sentence whose label no other has counts nothing.

    Args:
        embeddings: Embeddings of any norm, shape (n, dimension).
        labels: Class indices, shape (n,).
        temperature: Divides the cosines; positive.

    >>> corners = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> supervised_contrastive_loss(corners, torch.tensor([0, 0, 1, 1]), 0.1).item() < 1e-3
    True
    """
    unit = nn.functional.normalize(embeddings.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_probability = logits.log_softmax(dim=1).masked_fill(itself, 0.0)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    counts = positives.sum(dim=1)
    anchors = counts > 0
    losses = -(log_probability * positives).sum(dim=1)[anchors] / counts[anchors]
    return losses.mean()


class SupervisedContrastiveLoss(nn.Module):
    """The supervised contrastive loss as a loss of sentence-transformers' trainer.

    Args:
        model: The transformer.
        temperature: Divides the cosines.
        linear: A linear layer on the unit embeddings whose cross-entropy is added, or None.
        cross_entropy: Weight of that cross-entropy.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float,
        linear: nn.Linear | None = None,
        cross_entropy: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.linear, self.cross_entropy = linear, cross_entropy

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of one column of tokenized sentences with their class indices, shape (n,)."""
        (features,) = sentence_features
        embeddings = embed_by_length(self.model, features)
        loss = supervised_contrastive_loss(embeddings, labels, self.temperature)
        if self.linear is None:
            return loss
        logits = self.linear(nn.functional.normalize(embeddings.float(), dim=1))
        return loss + self.cross_entropy * nn.functional.cross_entropy(logits, labels)
