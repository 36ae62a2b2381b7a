"""The losses compared with each other: `boneage losses`."""
