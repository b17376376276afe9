"""How an answer is found: the loop over candidates, one attempt, the relay and the judge."""
