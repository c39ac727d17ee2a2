"""Torch modules shared by the NequIP and the MACE models; they import torch and e3nn only."""
