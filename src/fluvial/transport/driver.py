"""``kafka+batch://``: Faust's aiokafka transport with batch topics, explicit positions and honest acknowledgements.

Group membership, assignment, heartbeats, the producer and per-event topics are the stock driver's.
"""

from faust.transport.drivers import aiokafka as stock

from fluvial.transport.consumer import Consumer


class Transport(stock.Transport):  # type: ignore[misc]
    """``kafka+batch://host:port``; give the producer a ``kafka://`` URL."""

    Consumer = Consumer
    driver_version = f"fluvial on {stock.Transport.driver_version}"
