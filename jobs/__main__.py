"""`python -m jobs`: every job, the command that it is, and what it does."""

from codepmp_ray.command.app import list_jobs

if __name__ == "__main__":
    list_jobs()
