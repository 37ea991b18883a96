"""What training will take - memory, hours, money, disk - before any of it is taken.

``model`` counts weights, ``activations`` and ``memory`` bytes a worker, ``volume`` tokens and
files, ``speed`` hours and dollars on the GPUs of ``gpus``, ``options`` looks for settings that fit;
``plan`` puts them together for ``llumi plan``, and ``check`` holds them against the real devices.
"""
