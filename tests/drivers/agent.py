"""An agent with OpenTelemetry's own SDK, whose spans execpool's are to join: it connects as the page for
app developers says, word by word.

    agent.py PAGE SOCKET-DIRECTORY COLLECTOR
"""

import asyncio
import sys
import time

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

page, directory, endpoint = sys.argv[1:]
provider = TracerProvider(resource=Resource.create({"service.name": "agent"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("agent")

with open(page, encoding="utf-8") as text:
    section = text.read().split("\n## Your traces\n", 1)[1].split("\n## ", 1)[0]
lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
exec("\n".join(lines).replace("/run/execpool", directory))


def psycopg_way():
    with by_psycopg("run-psycopg") as connection:
        connection.execute("SELECT pg_sleep(0.4)")
        time.sleep(0.6)
        connection.commit()
        time.sleep(0.2)


def sqlalchemy_way():
    with by_sqlalchemy("run-sqlalchemy").connect() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(0.4)")
        time.sleep(0.6)
        connection.commit()
        time.sleep(0.2)


def asyncpg_way():
    async def work():
        connection = await by_asyncpg("run-asyncpg")
        async with connection.transaction():
            await connection.execute("SELECT pg_sleep(0.4)")
            await asyncio.sleep(0.6)
        await asyncio.sleep(0.2)
        await connection.close()

    asyncio.run(work())


with tracer.start_as_current_span("run"):
    for way in (psycopg_way, sqlalchemy_way, asyncpg_way):
        with tracer.start_as_current_span(way.__name__):
            way()
provider.shutdown()
