//! Hosts in network namespaces on one machine: for the demo, the benchmarks and the tests.
