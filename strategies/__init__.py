"""The server side: schedulers, aggregators, client policies and task weights, and the strategies made of them."""
