"""Bone age from hand radiographs: attention-guided regions and age distributions, on ldlcam."""
