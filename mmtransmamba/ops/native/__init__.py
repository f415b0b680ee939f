"""The compiled CPU kernels: sources, build and loading."""
