"""`codepmp verify` as a job."""

from codepmp_ray.command.app import run_job

if __name__ == "__main__":
    run_job("verify")
