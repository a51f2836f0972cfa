"""What the installed llama.cpp can do beyond answering: its exported C functions, by ctypes.

``library`` finds the shared object and checks what it exports · ``quantise`` writes storage types ·
``tokens`` is the engine's tokenizer · ``layout`` knows its structures · ``logits`` and
``activations`` look inside a model, in a process of its own (``process``, ``worker``).
The exported symbols are a by-product of linking, not an interface: everything here tests itself
at first use and fails with one clear sentence.
"""
