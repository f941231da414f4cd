"""What torch and the exporters call things in an ONNX file."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""The entry of a node's metadata in which torch puts the names of the modules that the node came from."""
