import asyncio
import os
import socket
import sys

import asyncpg

exec(os.environ["SETTINGS"])


async def main():
    print("connecting", flush=True)
    try:
        pool = await asyncpg.create_pool(
            host=os.environ["HOST"], port=int(os.environ["PORT"]), user="postgres",
            database="postgres", ssl=False, min_size=1, max_size=1, **options)
        connection = await pool.acquire()
        print("connected", flush=True)
        loop = asyncio.get_running_loop()
        while sql := await loop.run_in_executor(None, sys.stdin.readline):
            await connection.execute(sql)
            print("answer", flush=True)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.TimeoutError) as error:
        print("error:", type(error).__name__, *str(error).split(), flush=True)
        os._exit(1)


asyncio.run(main())
