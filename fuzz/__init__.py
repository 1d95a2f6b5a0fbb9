"""Mutation fuzzing of everything that reads bytes from strangers: `python -m fuzz --seconds 60 [--target NAME]`.

Each target runs in a process of its own with little memory. An input may be taken, or refused with its own error;
anything else, also too much time or memory, is a crash: the input is kept and the line that repeats it is printed.
"""
