"""Tests of resnet_edge.data."""
