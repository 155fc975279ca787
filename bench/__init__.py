"""The load benchmark: what a relay carries, as a ratio to a plain relay measured in the same minute."""
