#!/usr/bin/env python3
"""Write the projectors of random weights with which the tests look at pictures. Needs: numpy, gguf.

They see nothing, but have the shapes of real ones: other pictures give other vectors, so that what a model writes tells
whether it was shown the picture that was sent.

chatter-eye.gguf   For chatter.gguf, as LLaVA's: 16 vectors for a picture, which is made square.
chatter-gaze.gguf  For chatter.gguf, as Gemma 3's: 4 vectors, evaluated together, each seeing the others.
roamer.gguf        A tiny model of the architecture of Qwen2-VL, whose positions have width and height.
roamer-eye.gguf    Its projector: a vector for each 8 by 8 pixels, more of them for larger pictures.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
from make_chatter import chatter, write

WIDTH, HEADS, FF = 32, 2, 48


class Encoder:
    """A vision transformer of random weights, on its way into a file."""

    def __init__(self, path: Path, kind: str, *, size: int, patch: int, layers: int, outputs: int) -> None:
        """Write its description and its layers."""
        w = self.writer = gguf.GGUFWriter(path, "clip")
        w.add_type("projector")
        w.add_file_type(0)
        w.add_bool("clip.has_vision_encoder", True)
        w.add_string("clip.projector_type", kind)
        w.add_bool("clip.use_gelu", True)
        w.add_uint32("clip.vision.embedding_length", WIDTH)
        w.add_uint32("clip.vision.feed_forward_length", FF)
        w.add_uint32("clip.vision.block_count", layers)
        w.add_uint32("clip.vision.projection_dim", outputs)
        w.add_uint32("clip.vision.attention.head_count", HEADS)
        w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
        w.add_uint32("clip.vision.image_size", size)
        w.add_uint32("clip.vision.patch_size", patch)
        w.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        w.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
        self._rng = np.random.default_rng(11)
        self.add("v.patch_embd.weight", WIDTH, 3, patch, patch, std=0.15)
        for layer in range(layers):
            for name in ("ln1", "ln2"):
                self.one(f"v.blk.{layer}.{name}")
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.add(f"v.blk.{layer}.{name}.weight", WIDTH, WIDTH)
            self.add(f"v.blk.{layer}.ffn_up.weight", FF, WIDTH)
            self.add(f"v.blk.{layer}.ffn_down.weight", WIDTH, FF)

    def add(self, name: str, *shape: int, std: float = 0.2) -> None:
        """Add a tensor of random numbers."""
        self.writer.add_tensor(name, self._rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    def one(self, name: str) -> None:
        """Add a norm that leaves things as they are."""
        self.writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        self.writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    def close(self) -> None:
        """Write the file."""
        write(self.writer)


def llava(path: Path, outputs: int = 64) -> None:
    encoder = Encoder(path, "mlp", size=32, patch=8, layers=2, outputs=outputs)
    encoder.add("v.position_embd.weight", 16, WIDTH)
    encoder.add("mm.0.weight", outputs, WIDTH)
    encoder.writer.add_tensor("mm.0.bias", np.zeros(outputs, np.float32))
    encoder.add("mm.2.weight", outputs, outputs)
    encoder.writer.add_tensor("mm.2.bias", np.zeros(outputs, np.float32))
    encoder.close()


def gemma3(path: Path, outputs: int = 64) -> None:
    encoder = Encoder(path, "gemma3", size=32, patch=8, layers=1, outputs=outputs)
    encoder.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    encoder.add("v.position_embd.weight", 16, WIDTH)
    encoder.one("v.post_ln")
    encoder.add("mm.input_projection.weight", WIDTH, outputs)
    encoder.writer.add_tensor("mm.soft_emb_norm.weight", np.ones(WIDTH, np.float32))
    encoder.close()


def qwen2vl(path: Path, outputs: int = 32) -> None:
    encoder = Encoder(path, "qwen2vl_merger", size=32, patch=4, layers=1, outputs=outputs)
    for name in ("attn_q", "attn_k", "attn_v"):
        encoder.writer.add_tensor(f"v.blk.0.{name}.bias", np.zeros(WIDTH, np.float32))
    encoder.add("v.patch_embd.weight.1", WIDTH, 3, 4, 4, std=0.15)
    encoder.one("v.post_ln")
    encoder.add("mm.0.weight", 4 * WIDTH, 4 * WIDTH, std=0.1)
    encoder.writer.add_tensor("mm.0.bias", np.zeros(4 * WIDTH, np.float32))
    encoder.add("mm.2.weight", outputs, 4 * WIDTH, std=0.1)
    encoder.writer.add_tensor("mm.2.bias", np.zeros(outputs, np.float32))
    encoder.close()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    llava(folder / "chatter-eye.gguf")
    gemma3(folder / "chatter-gaze.gguf")
    chatter(folder / "roamer.gguf", hidden=32, ff=48, architecture="qwen2vl")
    qwen2vl(folder / "roamer-eye.gguf")


if __name__ == "__main__":
    main()
