"""homerd: a capture server for VoIP signalling, driven by a routing script."""

__version__ = "0.1.0"
