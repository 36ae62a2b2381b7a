"""`python -m boneage` is `boneage`, for what starts modules, as torchrun does."""

from boneage.cli import main

main()
