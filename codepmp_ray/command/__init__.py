"""The command `codepmp`: what people type, and what `python -m jobs.NAME` starts on a cluster.

registry.py  each command once: name, body, what it needs and writes, examples, keys
app.py       all of them as one typer application
helping.py   what help and completion say of them
reusing.py   why a finished stage is made again, and how to take it as it is
process.py   exit codes, one-line errors, signals
groups.py    the bodies, a file for each group in the order of the road
"""
