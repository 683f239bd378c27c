"""The tests on a device, and compute-sanitizer over every kernel."""
