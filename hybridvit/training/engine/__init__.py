"""Devices, processes, memory and the optimizer: what a step runs on."""
