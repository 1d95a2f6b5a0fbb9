"""Administration of our hub with the tools of others (protocol section 19): who may, what they ask, our answers.

`access` decides who is let in, `calls` reads one call and answers it; the other modules are one family of calls each.
They do nothing of their own: what changes something goes through the same verbs as the command line's.
"""
