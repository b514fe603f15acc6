"""The best-of-N scoring service: a Ray Serve application over one scoring path.

`codepmp_ray/serve` is a link to this folder: the package's own name for it is `codepmp_ray.serve`,
which the wheel holds too. Modules here import each other relatively, and strings that Ray imports
by begin with `__package__`, so that no module is loaded under two names.
"""
