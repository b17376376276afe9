"""Types, errors, contracts, configuration: what everything else speaks in. Imports none of ours."""
