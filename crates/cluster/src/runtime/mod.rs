//! What joins transport, control plane and the members of shards into a node of a cluster: threads, queues and clocks. It decides nothing.

mod jobs;
mod moments;
mod pump;
mod ticks;
mod waits;
