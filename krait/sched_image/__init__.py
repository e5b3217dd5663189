"""A freestanding image that counts what the scheduling policies cost; krait/sched_bench.py builds and runs it."""
