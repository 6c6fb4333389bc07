"""``python -m resnet_edge``."""

from resnet_edge.cli import main

main()
