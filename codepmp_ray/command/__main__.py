"""`python -m codepmp_ray.command`: the command where its script is not installed."""

from codepmp_ray.command.app import main

if __name__ == "__main__":
    main()
