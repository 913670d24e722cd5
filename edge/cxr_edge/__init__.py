"""cxr-edge: judge chest radiographs on a small box, without GPU, network or anybody watching."""

__version__ = "0.1.0"
