"""Entry points for clusters: `python -m jobs.NAME --config RECIPE key=value ...`.

Each is a command of `codepmp` under the name of a job; `python -m jobs` lists them.
"""
