"""Small models of three architectures, and the data they are trained on: no download, the same on every machine."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 128
TEXT_BATCH = 4
IMAGE_BATCH = 24
IMAGE_SIDE = 24
CLASSES = 8

Batch = Callable[[], Tensor]
"""Runs the model on the next batch, and gives the loss."""


class Block(nn.Module):
    """Attention, then whatever follows it."""

    def __init__(self, width: int, heads: int, feed_forward: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, context, width), as it came."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.feed_forward(self.norm_2(x))


class Experts(nn.Module):
    """A mixture: each token goes to its two best experts."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, context, width), as it came."""
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(tokens).softmax(-1).topk(2)
        result = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == number)
            if len(rows):
                result = result.index_add(0, rows, expert(tokens[rows]) * weights[rows, slots, None])
        return result.view_as(x)


class Text(nn.Module):
    """A byte-level language model over `blocks`."""

    def __init__(self, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, context, 256) of tokens (batch, context)."""
        hidden = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        logits: Tensor = self.head(self.norm(self.blocks(hidden)))
        return logits


def gpt() -> nn.Module:
    """1.9 M parameters."""
    width = 192

    def feed_forward() -> nn.Module:
        return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    return Text(width, [Block(width, 6, feed_forward()) for _ in range(4)])


def mixture() -> nn.Module:
    """1.9 M parameters, eight experts a layer."""
    return Text(128, [Block(128, 4, Experts(128, 256, 8)) for _ in range(3)])


def convolutional() -> nn.Module:
    """1.6 M parameters: three stages of residual convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for inputs, outputs in ((64, 128), (128, 256), (256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.ReLU()]
        if outputs == 256:
            layers += [nn.Conv2d(outputs, outputs // 4, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs // 4, outputs, 1)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, CLASSES)
    )


def library_source() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Python's own standard library as text, 4 MB."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
    return np.frombuffer(bytes(text[: 4 * 10**6]), dtype=np.uint8)


def text_batches(model: nn.Module, seed: int) -> Batch:
    """Next-byte prediction at random places of the library's source."""
    text, generator = library_source(), np.random.default_rng(seed)

    def batch() -> Tensor:
        starts = generator.integers(0, len(text) - CONTEXT - 1, TEXT_BATCH)
        rows = torch.from_numpy(np.stack([text[start : start + CONTEXT + 1] for start in starts]).astype(np.int64))
        return functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    return batch


def image_batches(model: nn.Module, seed: int) -> Batch:
    """Which of eight textured shapes is it? Random place, size, colour and noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:IMAGE_SIDE, 0:IMAGE_SIDE].astype(np.float32)

    def batch() -> Tensor:
        labels = generator.integers(0, CLASSES, IMAGE_BATCH)
        images = generator.normal(0, 0.3, (IMAGE_BATCH, 3, IMAGE_SIDE, IMAGE_SIDE)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            cy, cx = generator.uniform(7, 17, 2)
            size, power = generator.uniform(3, 7), (1, 2, 4, 8)[label % 4]
            inside = (np.abs(y - cy) ** power + np.abs(x - cx) ** power) < size**power
            stripes = 1.0 if label < 4 else np.sin(x * generator.uniform(1.0, 2.0))
            image[:] += generator.uniform(0.3, 1, (3, 1, 1)).astype(np.float32) * (inside * stripes)
        return functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))

    return batch


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, int], Batch]]] = {
    "gpt": (gpt, text_batches),
    "mixture": (mixture, text_batches),
    "convolutional": (convolutional, image_batches),
}
