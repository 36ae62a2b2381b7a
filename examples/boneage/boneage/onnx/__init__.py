"""The whole predictor as one ONNX file, for programs that have no Python."""
