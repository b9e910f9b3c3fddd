"""What stores on SQL have in common: how deliveries join the queue, what keeps its order, what people do, searches.

The SQL is written once, in the words that SQLite and PostgreSQL share, and where they have none in SQLite's: see
`stores/postgresql/dialect` for what becomes of those. What is done to many rows at once, as fast as an engine can, each
store has for itself.

- `tables` has what the tables' columns mean, whatever their types; `rows` turns values to rows and back
- `joining` lets new deliveries into the queue: `lanes` that keep an order, windows, `repeats` of what is known
- `results` is what an attempt changes, where something interfered; `commands` are what people and configs do
- `search` and `clauses` find what `/logs` asks for, by `shapes`
- `deltas` count what waits
"""
