"""Models in the layout of Hugging Face's hub: import, export, and a cache of imported ones.

A family of public models is a configuration of this project's own network, a table of names of weights, and a
reader and writer of tokenizer files. `asr.kinds` lists the families.
"""
