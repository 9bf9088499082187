# libpq.py psycopg2|psycopg
import importlib
import os
import sys

driver = importlib.import_module(sys.argv[1])
print("connecting", flush=True)
try:
    connection = driver.connect(os.environ["CONNINFO"] + " " + os.environ["SETTINGS"])
    connection.autocommit = True
    print("connected", flush=True)
    for sql in sys.stdin:
        connection.cursor().execute(sql)
        print("answer", flush=True)
except driver.Error as error:
    print("error:", *str(error).split(), flush=True)
