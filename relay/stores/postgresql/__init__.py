"""The queue on PostgreSQL, shared by any number of relays. Needs psycopg, relay's extra `postgres`.

What it has in common with other stores on SQL lies in `stores/_sql`, whose words `dialect` translates.

- `membership` says that this process lives, and notices who does not; `claiming` brings deliveries into its hand
- `committer` writes: group commit; `joining`, `transaction`, `bulk` and `shapes` are what one commit writes,
  `ahead` how the common one is sent
- `reader` asks, on connections that cannot write; `walking` is how `/logs` finds the newest of many
- `store` has the verbs, `opening` opens it; `sharing` is what the rest of relay knows of the other processes
- `asking` is what `relay doctor` asks it
- `pruning`, `survey`, `schema`, `connection`; `pooling` is what may stand in between
"""

from __future__ import annotations

from relay.stores.postgresql.opening import open_reader, open_url, server, survey
from relay.stores.postgresql.store import PostgresStore

__all__ = ["PostgresStore", "open_reader", "open_url", "server", "survey"]
