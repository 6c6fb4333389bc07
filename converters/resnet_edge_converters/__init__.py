"""The converters that come with resnet-edge: one module a format, found through entry points."""
