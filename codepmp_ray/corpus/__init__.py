"""From sources of code files to typed snippets: list, read, filter, extract, deduplicate, sample.

Nothing here imports ray: `codepmp_ray.cluster.corpus` runs these functions in parallel.
"""
