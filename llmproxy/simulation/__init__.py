"""Demand replayed against upstreams with limits, on a clock of its own, through the routing of the server."""
