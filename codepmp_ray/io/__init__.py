"""Files of rows, by path or URI: the one way in for data sets, pools, threads and sources of code.

listing.py       which files a setting names, and which of them are read
json_lines.py    JSON lines and JSON arrays, compressed or not: cut into pieces, and read
parquet_rows.py  the same for Parquet
continued.py     what is read from its beginning only, read once
rows.py          all rows of a file or folder, numbered
shards.py        a plan of pieces, each of which becomes one shard
"""
