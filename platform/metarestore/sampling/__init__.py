"""Drawn pairs as files: LR and HR images beside a text file of parameters, from which they can be made again."""
