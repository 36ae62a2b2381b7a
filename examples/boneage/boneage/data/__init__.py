"""Radiographs: tables, images, splits, cached small versions, batches."""
