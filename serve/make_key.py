"""Make an API key (or a scrape token): the key for its holder, its digest for the service.

Standard output is a line of serving.api_keys_file (read again when the file changes), the key goes
to standard error: `python -m codepmp_ray.serve.make_key alice >> digests.txt` shows the key alone.
The digest may also stand in api_key_sha256 of serve/config.yaml or serving.metrics_token_sha256.
"""

from __future__ import annotations

import argparse
import sys

from .auth import digest_of, generate_key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("holder", nargs="?", default="", help="a name, as a comment on the line")
    holder = parser.parse_args().holder
    key = generate_key()
    print(f"key: {key}", file=sys.stderr)
    print(digest_of(key) + (f"  # {holder}" if holder else ""))


if __name__ == "__main__":
    main()
