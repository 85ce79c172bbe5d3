"""One module per step of the flow; a stage never imports a stage, they meet through ``types``.

source -> decode -> preprocess -> backbone -> store -> head -> export -> classify
"""
