//! Integration tests of the program and of the workspace as a whole.

mod backup;
mod bench;
mod cluster;
mod doors;
mod kill;
mod namespaces;
mod playground;
mod process;
mod start;
mod tidy;
