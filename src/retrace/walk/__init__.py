"""The mathematics of walks: pure torch functions. No files, no modules, no configuration, no choice of device.

A walker stands on a node of one frame and moves to a node of another frame with the probabilities of a transition
`P = softmax(A / temperature)`, row i saying where a walker on node i goes. Training asks walks to come home
(`cycles`); propagation lets labels ride on them (`readout`).
"""
