"""The benchmark jobs and what they are held against; installed as ioi_fast.benchmarks."""
