"""Who can answer and who is asked first. Pure: takes values and `now`, returns values with reasons."""
